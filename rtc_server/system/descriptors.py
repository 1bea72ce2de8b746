"""Counts file descriptors: the limit, those left, and those reserved for media.

A process without any left can neither take a call nor say that it cannot. So the limit is raised as far as it goes
(services start with a soft limit of 1,024, for programs that use ``select``), HTTP connections stop short of what the
media needs, and sessions short of what the process needs for itself.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import time
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

_MOST: Final = 65_536
"""More than a machine has use for; what goes through all of them, as some programs do before they start another, takes
long with a million."""
_FRESH_S: Final = 0.1
_FOR_ITSELF: Final = 8
"""Files that are read for an answer, and the pipes of an engine that is started again; fewer where all are few."""
_MOST_FOR_MEDIA: Final = 256
_ABSENT: Final = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> int:
    """Have as many as the system lets this user's processes have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # macOS has a further limit, below the hard one
            logger.info("the limit of %d open files cannot be raised", soft)
    return limit()


def limit() -> int:
    """How many this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else soft


def is_shortage(error: BaseException | None) -> bool:
    """Whether ``error`` says that there is no descriptor left."""
    return isinstance(error, OSError) and error.errno in _ABSENT


def _count() -> int:
    """How many are open. Raises OSError where that cannot be told."""
    return len(os.listdir("/dev/fd")) - 1  # noqa: PTH208 - the one that it is read by is gone by now


class Descriptors:
    """Those of this process. They are counted now and then; in between, takers say what they take.

    ``count`` and ``clock`` are for tests.
    """

    def __init__(
        self,
        most: int | None = None,
        count: Callable[[], int] = _count,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = limit() if most is None else most
        self._count = count
        self._clock = clock
        self._left = 0
        self._counted_at: float | None = None
        self._for_itself = min(_FOR_ITSELF, self.most // 16)

    def left(self) -> int:
        """How many may still be opened, to the tenth of a second; 0 if there is not even one to count them with."""
        now = self._clock()
        if self._counted_at is None or now - self._counted_at >= _FRESH_S:
            self._counted_at = now
            try:
                self._left = max(0, self.most - self._count())
            except OSError as error:
                self._left = 0 if is_shortage(error) else self.most
        return self._left

    def take(self, number: int = 1) -> None:
        """So many are taken, or about to be; a negative number is given back."""
        self._left = max(0, self._left - number)

    def suffice_for_http(self, connections: int) -> bool:
        """Whether one more connection, beside so many that there are, leaves the media its half of what there is."""
        left = self.left()
        return left > self._for_itself + min(_MOST_FOR_MEDIA, (left + connections) // 2)

    @property
    def suffice_for_an_answer(self) -> bool:
        """Whether there are some at all."""
        return self.left() > self._for_itself // 2

    def suffice_for_media(self, sockets: int) -> bool:
        """Whether a session may have so many."""
        return self.left() >= self._for_itself + sockets
