"""Token buckets by name that several processes fill and empty together, in memory that they share.

Times are those of the monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from rtc_server.system.shared_file import SharedFile

_ROW: Final = struct.Struct("<16sdd")
"""Whose, how many events may pass, and when that was so."""
_WAYS: Final = 8
"""Rows that a name may have: the one that was not seen for longest makes room."""
_ROWS: Final = 8192
SIZE: Final = _ROWS * _ROW.size


class SharedBuckets:
    """As :class:`rtc_server.system.rate_limit.Buckets`. ``file``: of at least :data:`SIZE` bytes from ``offset``.
    ``key``: known to these processes alone, or a client could choose addresses that share their rows."""

    def __init__(self, rate_per_s: float, burst: int, file: SharedFile, key: bytes, offset: int = 0) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._file = file
        self._key = key
        self._offset = offset

    def wait_s(self, name: str, now: float) -> float:
        """0: one more event of ``name`` may pass now, and is counted. Else the seconds until one may."""
        digest = hashlib.blake2s(name.encode(), digest_size=16, key=self._key).digest()
        group = int.from_bytes(digest[:4], "little") % (_ROWS // _WAYS) * _WAYS
        with self._file.locked():
            rows = [self._offset + (group + way) * _ROW.size for way in range(_WAYS)]
            found = {row: _ROW.unpack_from(self._file.memory, row) for row in rows}
            row = next((row for row in rows if found[row][0] == digest), None)
            if row is None:
                row = min(rows, key=lambda row: found[row][2])
                tokens = self._burst
            else:
                _, left, at = found[row]
                tokens = min(self._burst, left + max(0.0, now - at) * self._rate_per_s)
            passes = tokens >= 1
            _ROW.pack_into(self._file.memory, row, digest, tokens - passes, now)
        return 0.0 if passes else (1 - tokens) / self._rate_per_s
