"""Decides whether there is room for what a conversation can do without: it ends well before clients are refused. Pure:
loads and times are arguments, in monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LATE_SHARE: Final = 0.025
"""Of the loop's ticks: half of what closes the door."""
STEP_SHARE: Final = 0.85
"""Of the step time that closes the door."""
_CALM_LATE_SHARE: Final = 0.01
_CALM_STEP_SHARE: Final = 0.7
FIRST_PAUSE_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 160.0
_LASTING_S: Final = 60.0
"""What has lasted for so long was not what brought the load."""


@dataclass(frozen=True, slots=True)
class Load:
    """``crowded``: the door is closed. ``late_share``: of the loop's ticks, those that were late. ``step_share``: of
    the slowest engine's, its median step by the one that closes the door."""

    crowded: bool = False
    late_share: float = 0.0
    step_share: float = 0.0


class Headroom:
    """One server's. It ends with the first sign of load, and comes back after a calm; each time that it does not last,
    the calm has to be twice as long."""

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S
        self._calm_since: float | None = None
        self._open_since: float | None = None
        self.there = True

    def look(self, now: float, load: Load) -> bool:
        """Take the load of now; returns whether there is room."""
        if self.there:
            self._open_since = now if self._open_since is None else self._open_since
            if load.crowded or load.late_share >= LATE_SHARE or load.step_share >= STEP_SHARE:
                self._end(now, self._open_since)
        elif load.crowded or load.late_share > _CALM_LATE_SHARE or load.step_share > _CALM_STEP_SHARE:
            self._calm_since = None
        else:
            self._calm_since = now if self._calm_since is None else self._calm_since
            if now - self._calm_since >= self._pause_s:
                self.there, self._open_since = True, now
        return self.there

    def _end(self, now: float, open_since: float) -> None:
        if now - open_since >= _LASTING_S:
            self._pause_s = FIRST_PAUSE_S
        elif self._calm_since is not None:  # it came back, and did not last
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self.there, self._calm_since = False, None
