"""Readable byte sources: a descriptor shared with another process, and a part of a file."""

from __future__ import annotations

import io
import os
from typing import Final, Protocol

_CHUNK_BYTES: Final = 64 * 1024


class Source(Protocol):
    """A binary file that is open for reading, and seekable."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


class Descriptor:
    """A regular file by its descriptor. The position is its own: another process may have the same file open."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._position = 0

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._number, size, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: os.fstat(self._number).st_size}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position


class Window:
    """The bytes of ``source`` from ``start`` to ``end``, with some replaced.

    All that a demuxer gets: neither a name, by which formats are guessed and other files resolved, nor what is beside.
    """

    def __init__(self, source: Source, start: int, end: int, patches: dict[int, int] | None = None) -> None:
        self._source = source
        self._start, self._end = start, end
        self._position = 0
        self._patches = patches or {}

    def read(self, size: int, /) -> bytes:
        at = self._position
        self._source.seek(self._start + at)
        data = self._source.read(max(0, min(size, self._end - self._start - at)))
        self._position += len(data)
        for offset, byte in self._patches.items():
            if at <= offset < at + len(data):
                data = data[: offset - at] + bytes([byte]) + data[offset - at + 1 :]
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end - self._start}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True


class Scan:
    """Small reads in rising order, without a system call for each."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size = source.seek(0, io.SEEK_END)
        self._chunk = b""
        self._chunk_at = 0

    def at(self, offset: int, size: int) -> bytes:
        """``size`` bytes, at most :data:`_CHUNK_BYTES`; fewer at the end."""
        within = offset - self._chunk_at
        if within < 0 or within + size > len(self._chunk):
            self._source.seek(offset)
            self._chunk, self._chunk_at, within = self._source.read(_CHUNK_BYTES), offset, 0
        return self._chunk[within : within + size]

    def find(self, needle: bytes, start: int) -> int:
        """Offset of the next ``needle``; the size of the file if nowhere."""
        while start < self.size:
            chunk = self.at(start, _CHUNK_BYTES)
            found = chunk.find(needle)
            if found >= 0:
                return start + found
            start += max(1, len(chunk) - len(needle) + 1)
        return self.size
