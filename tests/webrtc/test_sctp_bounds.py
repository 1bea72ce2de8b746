"""SCTP packets that cost bounded time and memory are read, others are not."""

from __future__ import annotations

import contextlib
import struct

import pytest
from aiortc.rtcsctptransport import (
    AbortChunk,
    Chunk,
    CookieEchoChunk,
    DataChunk,
    ForwardTsnChunk,
    HeartbeatChunk,
    InitAckChunk,
    InitChunk,
    ReconfigChunk,
    SackChunk,
    ShutdownChunk,
    parse_packet,
    serialize_packet,
)
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.webrtc.sctp_bounds import (
    MAX_AHEAD,
    MAX_FRAGMENTS,
    MAX_GAPS,
    MAX_STREAMS,
    Association,
    Chunks,
    chunks_of,
)

LAST = 2**32 - 3


def association(
    last_tsn: int | None = LAST, streams: tuple[int, ...] = (0,), stream_count: int = 1, fragments: int = 0
) -> Association:
    return Association(last_tsn, streams, stream_count, fragments)


def packet(*chunks: Chunk | bytes) -> bytes:
    header = struct.pack("!HHL", 5000, 5000, 1)
    body = b"".join(bytes(chunk) for chunk in chunks)
    return header + struct.pack("<L", crc32c(header + bytes(4) + body)) + body


def raw(kind: int, body: bytes) -> bytes:
    return struct.pack("!BBH", kind, 0, 4 + len(body)) + body + bytes(-len(body) % 4)


def data(ahead: int = 1, stream: int = 0, text: bytes = b"x") -> DataChunk:
    chunk = DataChunk()
    chunk.tsn, chunk.stream_id, chunk.user_data = (LAST + ahead) % 2**32, stream, text
    return chunk


def sack(*gaps: tuple[int, int]) -> SackChunk:
    chunk = SackChunk()
    chunk.gaps = list(gaps)
    return chunk


def with_parameters(chunk: Chunk) -> Chunk:
    chunk.params = [(0x8008, b"\xc0\x82"), (7, bytes(24))]  # type: ignore[attr-defined]
    return chunk


@pytest.mark.parametrize(
    "chunk",
    [
        data(),
        data(MAX_AHEAD),
        data(-5),
        sack(),
        sack((2, 3), (5, 5)),
        with_parameters(InitChunk()),
        with_parameters(InitAckChunk()),
        with_parameters(HeartbeatChunk()),
        with_parameters(ReconfigChunk()),
        AbortChunk(),
        ShutdownChunk(),
        CookieEchoChunk(body=bytes(24)),
        ForwardTsnChunk(),
    ],
    ids=lambda chunk: type(chunk).__name__,
)
def test_what_aiortc_sends_is_read(chunk: Chunk) -> None:
    data_chunks = int(isinstance(chunk, DataChunk))
    one = Chunks(data_chunks, 1 - data_chunks)
    assert chunks_of(serialize_packet(5000, 5000, 1, chunk), association()) == one
    assert chunks_of(packet(chunk, chunk), association()) == Chunks(2 * one.data, 2 * one.others)


@pytest.mark.parametrize("kind", [1, 2, 4, 5, 6, 9, 130])
def test_a_parameter_without_a_length_is_not_read(kind: int) -> None:
    """It would be read for ever."""
    fixed = bytes(16) if kind in (1, 2) else b""
    for length in (0, 1, 3):
        assert chunks_of(packet(raw(kind, fixed + struct.pack("!HH", 7, length) + bytes(8))), association()) is None


@pytest.mark.parametrize(
    "bad",
    [
        packet(struct.pack("!BBH", 0, 0, 3)),
        packet(struct.pack("!BBH", 4, 0, 40)),
        packet(raw(0, bytes(12))),
        packet(data(MAX_AHEAD + 1)),
        packet(data(2**31 - 1)),
        packet(raw(1, bytes(15))),
        packet(raw(3, bytes(11))),
        packet(raw(3, struct.pack("!LLHH", 0, 0, 2, 0) + bytes(4))),
        packet(sack((1, 65_535))),
        packet(sack(*[(1, MAX_GAPS // 2)] * 3)),
        packet(raw(192, b"\0")),
    ],
)
def test_what_costs_too_much_is_not_read(bad: bytes) -> None:
    assert chunks_of(bad, association()) is None


def test_streams_and_fragments_are_bounded() -> None:
    assert chunks_of(packet(data(stream=9)), association(stream_count=MAX_STREAMS)) is None
    assert chunks_of(packet(data(stream=0)), association(stream_count=MAX_STREAMS)) == Chunks(data=1)
    assert chunks_of(packet(data()), association(fragments=MAX_FRAGMENTS)) is None
    assert chunks_of(packet(data()), association(last_tsn=None)) is None
    forward = ForwardTsnChunk()
    forward.streams = [(9, 1)]
    assert chunks_of(packet(forward), association(stream_count=MAX_STREAMS)) is None


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=80)), max_size=8), st.binary(max_size=8))
def test_what_is_read_aiortc_reads_or_refuses(chunks: list[tuple[int, bytes]], rest: bytes) -> None:
    """And comes to an end of it."""
    made = packet(*(raw(kind % 16 if kind < 128 else kind, body) for kind, body in chunks), rest)
    count = chunks_of(made, association())
    if count is not None:
        with contextlib.suppress(ValueError, struct.error):
            assert len(parse_packet(made)[3]) <= count.data + count.others
