"""Liveness of an engine: when it last answered, and when to ask. Pure: times are arguments, in seconds.

It is asked again and again, and whatever it says is an answer. Silence counts only while it is watched: a process
that was itself held up (a suspended machine, a debugger) has not heard what was said meanwhile, and blames no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

QUIET_S: Final = 2.0
"""Silence that is not usual, of an engine whose steps are short."""
AGAIN_S: Final = 1.0
"""A question, or its answer, may have been lost with the connection that carried it: it is asked once more."""
_STEPS: Final = 4
"""Nor is silence for as long as so many of its slowest steps."""


def quiet_s(steps_s: Iterable[float]) -> float:
    """How long an engine may be silent whose last steps took so long."""
    return max([QUIET_S, *(_STEPS * step_s for step_s in steps_s)])


class Pulse:
    """Of one engine, looked at every ``every_s``."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._silent_s = 0.0
        self._looked_at = math.inf
        self._asked = False
        self._ask_again_s = 0.0
        """After so much silence."""

    def answered(self) -> None:
        """The engine has said something, whatever it was."""
        self._asked = False
        self._silent_s = 0.0

    def look(self, now: float) -> float:
        """For how long a question has been waiting for an answer."""
        if self._asked:
            self._silent_s += min(now - self._looked_at, 2 * self.every_s)
        self._looked_at = now
        return self._silent_s

    def ask(self) -> bool:
        """Whether to ask it something now: not while it owes an answer, but for one that does not come."""
        due = not self._asked or self._silent_s >= self._ask_again_s
        if due:
            self._asked, self._ask_again_s = True, self._silent_s + AGAIN_S
        return due
