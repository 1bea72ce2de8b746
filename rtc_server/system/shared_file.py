"""Memory that the processes of one server share: a file that each of them maps, with a lock for all.

Owns the mapping. What is in it, and who writes where, is for its users to agree on.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path


class SharedFile:
    """``path``: of a file that :meth:`create` has made. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.memory = mmap.mmap(self._descriptor, 0)

    @classmethod
    def create(cls, path: Path, size: int) -> SharedFile:
        """Make it, of ``size`` bytes of zeros, for this user alone."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time: for microseconds, within one call. A process that is killed leaves it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Unmap it. What still looks into it keeps it until then."""
        with contextlib.suppress(BufferError):
            self.memory.close()
        os.close(self._descriptor)
