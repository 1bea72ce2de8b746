"""What becomes of an exception that a datagram brought about: it costs the datagram, and is told seldom or not at all.

Parsers raise whatever they like at what strangers send, and that is no one's fault here. An exception that comes from
this package's own code is one: it is told with its traceback, once a minute at most, for strangers might repeat it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import rtc_server

logger = logging.getLogger(__name__)

SELDOM_S: Final = 60.0
_OURS: Final = str(Path(rtc_server.__file__).parent)


class Faults:
    """``clock``: in monotonic seconds, for tests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at = -math.inf
        self._untold = 0
        self.last: Exception | None = None
        """That which was ours; for fuzzers."""

    def on_useless(self, error: Exception) -> None:
        """A datagram could not be read."""
        if not _is_ours(error):
            logger.debug("a datagram is of no use (%s)", type(error).__name__)
            return
        self.last = error
        if self._clock() - self._told_at < SELDOM_S:
            self._untold += 1
            return
        logger.error("a datagram met a fault of ours; %d since the last that was told", self._untold, exc_info=error)
        self._told_at, self._untold = self._clock(), 0


FAULTS: Final = Faults()
"""Those of this process."""


def _is_ours(error: Exception) -> bool:
    """Whether it was raised in a file of this package, and not in a library that was given the datagram."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and last.tb_frame.f_code.co_filename.startswith(_OURS)
