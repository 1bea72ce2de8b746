"""An RTP packet as it is read here (RFC 3550, section 5.1): its header's numbers, and its payload. Pure."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_HEADER: Final = struct.Struct("!BBHLL")
_PADDED: Final = 0x20
_EXTENDED: Final = 0x10
_SOURCES: Final = 0x0F


class Packet(NamedTuple):
    """Its fields have aiortc's names, for aiortc's router and statistics read them. ``payload``: without padding."""

    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes


def read_packet(data: bytes) -> Packet | None:
    """Read a packet without looking into its header extensions. None if its lengths do not fit into it, or if it is of
    another version."""
    if len(data) < _HEADER.size:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != 2:  # noqa: PLR2004 - the version
        return None
    start, end = _HEADER.size + 4 * (first & _SOURCES), len(data)
    if first & _EXTENDED:
        if end < start + 4:
            return None
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & _PADDED:
        padding = data[-1]
        if not padding:
            return None
        end -= padding
    if end < start:
        return None
    return Packet(second & 0x7F, sequence, timestamp, ssrc, data[start:end])
