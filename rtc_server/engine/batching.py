"""Batching delay: how long to hold a step for frames that are about to arrive. Pure: times are arguments, in seconds.

A step costs the same for one row as for all, and every stream sends a frame each 80 ms at a phase of its own: whoever
steps for each frame as it comes steps as often as there are streams. A frame may wait as long as a step takes, which
is what it would wait if it came when a step has just begun; so no stream waits longer than before, and the processor
is left to others.
"""

from __future__ import annotations

import math
from typing import Final

from rtc_server.audio import FRAME_MS

_FRAME_S: Final = FRAME_MS / 1000
_MOST_S: Final = _FRAME_S / 2
"""A frame waits no longer than this, however long a step takes."""
_LATE_S: Final = 0.01
"""What is later than this is not waited for."""
_NEWEST: Final = 0.1
"""Share of the last step in the mean of all."""


class Rhythm:
    """Of ``slots`` streams."""

    def __init__(self, slots: int) -> None:
        self._due_s = [-math.inf] * slots
        self._oldest_s = math.inf
        self._step_s = 0.0

    def came(self, slot: int, at_s: float) -> None:
        """``slot`` has a frame, which came at ``at_s``: the next is due a frame later."""
        self._due_s[slot] = at_s + _FRAME_S
        self._oldest_s = min(self._oldest_s, at_s)

    def begun(self, more_waits: bool) -> None:
        """A step has taken one frame of each stream. ``more_waits``: some have another, which has waited long
        enough."""
        self._oldest_s = -math.inf if more_waits else math.inf

    def ended(self, seconds: float) -> None:
        """It took so long."""
        self._step_s += (seconds - self._step_s) * _NEWEST

    def wait_s(self, now_s: float) -> float:
        """How long the frames that have come should wait for others; 0 if none of those is worth it."""
        until_s = self._oldest_s + min(self._step_s, _MOST_S)
        expected = [due_s + _LATE_S for due_s in self._due_s if now_s < due_s + _LATE_S and due_s < until_s]
        return max(0.0, min(*expected, until_s) - now_s) if expected else 0.0
