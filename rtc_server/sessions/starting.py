"""What the client of a session that waits for its first slot is told: when it will be there, as far as is known. Of the
engine it knows the estimate alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rtc_server.engine.engine import Engine
from rtc_server.protocols.events import Starting

_TOLERANCE_S: Final = 1.0
"""A client counts the seconds itself: it is told again when it would be wrong by more than this."""


class StartingNotice:
    """Of one session. ``clock``: monotonic seconds."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._due_at: float | None = None
        """As was told last."""

    @property
    def changed(self) -> bool:
        """Whether what was told is not true any more."""
        eta_s = self._engine.starts_in_s
        if eta_s is None or self._due_at is None:
            return eta_s is not self._due_at
        told_s = max(0.0, self._due_at - self._clock())
        return abs(eta_s - told_s) > _TOLERANCE_S

    def tell(self) -> Starting:
        """What is known now."""
        eta_s = self._engine.starts_in_s
        self._due_at = None if eta_s is None else self._clock() + eta_s
        return Starting(None if eta_s is None else round(eta_s * 1000))
