"""Batching delay: how long to hold a step for frames that are about to arrive. Pure: times are arguments, in seconds.

A step costs a time of its own and a part for each row, and every stream sends a frame each 80 ms at a phase of its own:
an engine that steps for each frame as it comes steps as often as there are streams, and pays the fixed time as often. A
frame may wait for as long as that, which two that share a step save; the part of a row is paid in any step. It is less
than a step takes, which is what a frame would wait if it came when a step has just begun: so no stream waits longer
than before, and the processor is left to others. Both terms are learnt from the steps, by a line through their times.
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
_DOUBT_ROWS2: Final = 0.25
"""As if the number of rows varied by half a one more than it does, and the time not at all: from steps of nearly always
as many rows nothing is learnt of what a row costs."""


class Rhythm:
    """Of ``slots`` streams."""

    def __init__(self, slots: int) -> None:
        self._due_s = [-math.inf] * slots
        self._oldest_s = math.inf
        self._cost = _Cost()

    def came(self, slot: int, at_s: float) -> None:
        """``slot`` has a frame, which came at ``at_s``: the next is due a frame later."""
        self._due_s[slot] = at_s + _FRAME_S
        self._oldest_s = min(self._oldest_s, at_s)

    def begun(self, more_waits: bool) -> None:
        """A step has taken one frame of each stream. ``more_waits``: some have another, which has waited long
        enough."""
        self._oldest_s = -math.inf if more_waits else math.inf

    def ended(self, seconds: float, rows: int) -> None:
        """It took so long, with so many rows."""
        self._cost.learn(seconds, rows)

    def wait_s(self, now_s: float) -> float:
        """How long the frames that have come should wait for others; 0 if none of those is worth it."""
        until_s = self._oldest_s + min(self._cost.fixed_s, _MOST_S)
        expected = [due_s + _LATE_S for due_s in self._due_s if now_s < due_s + _LATE_S and due_s < until_s]
        return max(0.0, min(*expected, until_s) - now_s) if expected else 0.0


class _Cost:
    """Of a step: moving means of its time and its rows, and how they vary together."""

    def __init__(self) -> None:
        self._seconds = self._rows = self._variance = self._covariance = 0.0
        self._begun = False

    def learn(self, seconds: float, rows: int) -> None:
        if not self._begun:
            self._seconds, self._rows, self._begun = seconds, float(rows), True
            return
        off_s, off_rows = seconds - self._seconds, rows - self._rows
        self._seconds += off_s * _NEWEST
        self._rows += off_rows * _NEWEST
        self._variance = (1 - _NEWEST) * (self._variance + off_rows * off_rows * _NEWEST)
        self._covariance = (1 - _NEWEST) * (self._covariance + off_rows * off_s * _NEWEST)

    @property
    def fixed_s(self) -> float:
        """What a step takes beside the parts of its rows; all of it, as long as nothing is known of these."""
        of_a_row_s = max(0.0, self._covariance / (self._variance + _DOUBT_ROWS2))
        return max(0.0, self._seconds - of_a_row_s * self._rows)
