"""What is read of an RTP packet is what aiortc reads of it, and what is none is none there as well."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiortc.rtp import HeaderExtensions, RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.webrtc.rtp_packet import Packet, read_packet


class _Unread:
    """Header extensions that are not looked into."""

    def get(self, profile: int, value: bytes) -> HeaderExtensions:
        return HeaderExtensions()


def theirs(data: bytes) -> Packet | None:
    unread: Any = _Unread()
    try:
        packet = RtpPacket.parse(data, unread)
    except ValueError:
        return None
    return Packet(packet.payload_type, packet.sequence_number, packet.timestamp, packet.ssrc, packet.payload)


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Packets whose lengths mostly fit, cut off now and then."""
    version = draw(st.sampled_from([2, 2, 2, 0, 1, 3]))
    padded, extended, sources = draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 15))
    first = version << 6 | padded << 5 | extended << 4 | sources
    fields = draw(st.tuples(*(st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 32))))
    data = struct.pack("!BBHLL", first, *fields) + bytes(4 * draw(st.sampled_from([sources, sources, 0, 3])))
    if extended:
        words = draw(st.integers(0, 4))
        said = draw(st.sampled_from([words, words, words + 1, 2**16 - 1]))
        data += struct.pack("!HH", draw(st.integers(0, 2**16 - 1)), said) + draw(st.binary(max_size=4 * words))
    data += draw(st.binary(max_size=40))
    if padded:
        size = draw(st.integers(0, 255))
        data += bytes(draw(st.sampled_from([size, size, 1]))) + bytes([size])
    return data[: draw(st.sampled_from([len(data), len(data), draw(st.integers(0, len(data)))]))]


@given(packets() | st.binary(max_size=60))
def test_a_packet_is_read_as_aiortc_reads_it(data: bytes) -> None:
    assert read_packet(data) == theirs(data)


HEAD = struct.pack("!HLL", 7, 960, 5)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x60" + HEAD[:-1],
        b"\x40\x60" + HEAD + b"sound",
        b"\x81\x60" + HEAD + b"abc",
        b"\x8f\x60" + HEAD + bytes(59),
        b"\x90\x60" + HEAD + b"abc",
        b"\x90\x60" + HEAD + b"\xbe\xde\x00\x01abc",
        b"\x90\x60" + HEAD + b"\xbe\xde\xff\xff" + bytes(100),
        b"\xa0\x60" + HEAD,
        b"\xa0\x60" + HEAD + b"sound\x00",
        b"\xa0\x60" + HEAD + b"sound\x07",
        b"\xb0\x60" + HEAD + b"\xbe\xde\x00\x01abcd\x02",
    ],
    ids=[
        "empty",
        "cut off in its header",
        "of another version",
        "its source is cut off",
        "fifteen sources in less than sixty bytes",
        "the head of its extension is cut off",
        "its extension is cut off",
        "its extension is longer than any datagram",
        "its padding is its header",
        "padding of no bytes",
        "more padding than payload",
        "padding that reaches into the extension",
    ],
)
def test_what_does_not_fit_is_no_packet(data: bytes) -> None:
    assert read_packet(data) is None
    assert theirs(data) is None


def test_the_payload_is_what_stands_between_extension_and_padding() -> None:
    """With a marker, two sources, an extension that is not valid in itself, and three bytes of padding."""
    data = b"\xb2\xe0" + HEAD + b"\xff" * 8 + b"\xbe\xde\x00\x01\x0f\x0f\x0f\x0f" + b"sound" + b"\x00\x00\x03"
    assert read_packet(data) == Packet(0x60, 7, 960, 5, b"sound")


def test_a_packet_of_nothing_but_padding_has_no_payload() -> None:
    assert read_packet(b"\xa0\x60" + HEAD + b"\x01") == Packet(0x60, 7, 960, 5, b"")
