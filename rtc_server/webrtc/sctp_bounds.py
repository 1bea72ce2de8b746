"""Filters a peer's SCTP packets to those of bounded cost in time and memory. Pure.

A peer that sends one has been let in, and may still be at fault or at war. aiortc reads a parameter of length 0 for
ever, counts a gap of 65,000 numbers one by one, and keeps every fragment of a message that never ends. The checks here
do not ask whether a packet makes sense, but whether it is harmless.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

MAX_AHEAD: Final = 256
"""Numbers (TSN) that a chunk may be ahead of the last that came in order. A sender repeats what was dropped."""
MAX_GAPS: Final = 2048
"""Numbers that a SACK may name as received behind a gap. We never have that many under way."""
MAX_STREAMS: Final = 64
MAX_FRAGMENTS: Final = 1024
"""Chunks that wait for the rest of their message, of all streams: the largest message that we offer to take (RFC 8841,
section 6), four times over."""

_COMMON_HEADER_BYTES: Final = 12
_CHUNK: Final = struct.Struct("!BBH")
_PARAMETER: Final = struct.Struct("!HH")
_DATA: Final = struct.Struct("!LHHL")
_SACK: Final = struct.Struct("!LLHH")
_TSN: Final = struct.Struct("!L")
_INIT_BYTES: Final = 16

_DATA_TYPE: Final = 0
_SACK_TYPE: Final = 3
_FORWARD_TSN_TYPE: Final = 192
_PARAMETERS_AT: Final = {1: _INIT_BYTES, 2: _INIT_BYTES, 4: 0, 5: 0, 6: 0, 9: 0, 130: 0}
"""Where the parameters of a chunk begin, by its type (RFC 9260, section 3.3; RFC 6525, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Association:
    """What an association has taken in so far. ``last_tsn``: the last number in order, None before there is one;
    ``streams``: that are open; ``fragments``: chunks that wait."""

    last_tsn: int | None
    streams: Container[int]
    stream_count: int
    fragments: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """How many a packet has: of messages, and of all other kinds."""

    data: int = 0
    others: int = 0


def chunks_of(packet: bytes, association: Association) -> Chunks | None:
    """Chunks of a packet that may be read; None for one that may not."""
    data, others, at = 0, 0, _COMMON_HEADER_BYTES
    while at + _CHUNK.size <= len(packet):
        kind, _, length = _CHUNK.unpack_from(packet, at)
        if length < _CHUNK.size or at + length > len(packet):
            return None
        if not _is_bounded(kind, packet[at + _CHUNK.size : at + length], association):
            return None
        if kind == _DATA_TYPE:
            data += 1
        else:
            others += 1
        at += _padded(length)
    return Chunks(data, others)


def _is_bounded(kind: int, body: bytes, association: Association) -> bool:
    if kind == _DATA_TYPE:
        return _is_near(body, association)
    if kind == _SACK_TYPE:
        return _has_few_gaps(body)
    if kind == _FORWARD_TSN_TYPE:
        streams = [stream for stream, _ in struct.iter_unpack("!HH", body[_TSN.size : len(body) // 4 * 4])]
        return len(body) >= _TSN.size and all(_may_open(stream, association) for stream in streams)
    begin = _PARAMETERS_AT.get(kind)
    return begin is None or (len(body) >= begin and _has_parameters(body, begin))


def _is_near(body: bytes, association: Association) -> bool:
    if len(body) <= _DATA.size or association.last_tsn is None or association.fragments >= MAX_FRAGMENTS:
        return False
    tsn, stream, _, _ = _DATA.unpack_from(body)
    ahead = (tsn - association.last_tsn) % 2**32
    return (ahead <= MAX_AHEAD or ahead >= 2**31) and _may_open(stream, association)


def _may_open(stream: int, association: Association) -> bool:
    return stream in association.streams or association.stream_count < MAX_STREAMS


def _has_few_gaps(body: bytes) -> bool:
    if len(body) < _SACK.size:
        return False
    _, _, gaps, duplicates = _SACK.unpack_from(body)
    if len(body) < _SACK.size + 4 * (gaps + duplicates):
        return False
    blocks = struct.iter_unpack("!HH", body[_SACK.size : _SACK.size + 4 * gaps])
    named: int = sum(max(0, end - start + 1) for start, end in blocks)
    return named <= MAX_GAPS


def _has_parameters(body: bytes, at: int) -> bool:
    while at + _PARAMETER.size <= len(body):
        _, length = _PARAMETER.unpack_from(body, at)
        if length < _PARAMETER.size:
            return False
        at += _padded(length)
    return True


def _padded(length: int) -> int:
    return (length + 3) // 4 * 4
