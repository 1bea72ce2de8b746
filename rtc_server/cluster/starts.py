"""How long it takes until an engine that is started can be used, by what earlier ones took. Pure."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

GUESS_S: Final = 30.0
"""Before any engine has told."""
_RECENT: Final = 8
_SHARE: Final = 0.75
"""Of the recent ones that were ready within what is told: one that comes back too early waits once more."""


class StartTimes:
    """Of one service."""

    def __init__(self) -> None:
        self._measured: deque[float] = deque(maxlen=_RECENT)
        self._told_s = 0.0

    def measured(self, seconds: float) -> None:
        """From the pool's decision until an engine was ready."""
        self._measured.append(seconds)

    def told(self, load_s: float) -> None:
        """What an engine says of itself: all that a pool knows that was started after it."""
        self._told_s = load_s

    @property
    def expected_s(self) -> float:
        if self._measured:
            return sorted(self._measured)[math.ceil(_SHARE * len(self._measured)) - 1]
        return self._told_s or GUESS_S
