"""Packets come out of Ogg pages whole, however the bytes come; what is no Ogg is an error, and nothing grows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.inputs.mutations import mutations
from lab.inputs.ogg import CONTINUED, FIRST, headers, lacing, mended, page, raw_page
from rtc_server.errors import BadMessage
from rtc_server.protocols.ogg import MAX_PACKET_BYTES, MAX_SURPLUS_BYTES, OggReader, OggWriter

packets = st.lists(st.binary(max_size=600), max_size=20)


def paged(contents: list[bytes], segments: int) -> bytes:
    """The packets on pages of so many segments, over whose borders they go on."""
    table = b"".join(lacing(len(packet)) for packet in contents)
    body = b"".join(contents)
    pages = [page([b"first"], FIRST)]
    for at in range(0, len(table), segments):
        part = table[at : at + segments]
        goes_on = at > 0 and table[at - 1] == 255
        pages.append(raw_page(part, body[: sum(part)], CONTINUED if goes_on else 0))
        body = body[sum(part) :]
    return b"".join(pages)


def read(data: bytes, step: int) -> list[bytes]:
    reader = OggReader()
    return [packet for at in range(0, len(data), step) for packet in reader.read(data[at : at + step])]


@given(packets, st.integers(1, 255), st.integers(1, 5000))
def test_packets_come_out_as_they_went_in(contents: list[bytes], segments: int, step: int) -> None:
    assert read(paged(contents, segments), step) == [b"first", *contents]


def test_a_packet_comes_with_the_last_byte_of_its_page() -> None:
    reader = OggReader()
    data = page([b"first"], FIRST) + page([b"a", b"b"])
    assert list(reader.read(data[:-1])) == [b"first"]
    assert list(reader.read(data[-1:])) == [b"a", b"b"]


def test_another_stream_in_between_is_left_out() -> None:
    data = page([b"first"], FIRST, 1) + page([b"other"], 0, 9) + page([b"a"], 0, 1)
    assert read(data, 10) == [b"first", b"a"]


def test_one_stream_may_follow_another() -> None:
    data = page([b"first"], FIRST, 1) + page([b"a"], 0, 1) + page([b"second"], FIRST, 2) + page([b"b"], 0, 2)
    assert read(data, 10) == [b"first", b"a", b"second", b"b"]


def test_half_a_packet_is_none() -> None:
    half = raw_page(b"\xff", bytes(255))
    rest = raw_page(b"\x01", b"x", CONTINUED)
    assert read(page([b"first"], FIRST) + half + page([b"a"]), 100) == [b"first", b"a"]
    assert read(page([b"first"], FIRST) + half + rest, 100) == [b"first", bytes(255) + b"x"]
    # The second half of a packet whose stream began anew.
    assert read(page([b"first"], FIRST) + half + page([b"second"], FIRST) + half + rest, 100)[-1] == bytes(255) + b"x"


def test_a_packet_without_an_end_is_refused() -> None:
    reader = OggReader()
    assert list(reader.read(page([b"first"], FIRST))) == [b"first"]
    endless = raw_page(b"\xff" * 255, bytes(255 * 255), CONTINUED)
    for _ in range(MAX_PACKET_BYTES // (255 * 255)):
        assert list(reader.read(endless)) == []
    with pytest.raises(BadMessage):
        list(reader.read(endless))


@pytest.mark.parametrize("data", [b"hello", b"Ogg!", b"OggS\x01", b"RIFF" * 100, page([b"a"], FIRST) + b"x"])
def test_what_is_no_ogg(data: bytes) -> None:
    with pytest.raises(BadMessage):
        read(data, len(data))


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_are_packets_or_an_error(data: bytes, step: int) -> None:
    for stream in (data, b"OggS\0" + data, page([b"first"], FIRST) + b"OggS\0" + data):
        try:
            read(stream, step)
        except BadMessage:
            continue


def test_pages_with_nothing_in_them_have_an_end() -> None:
    """A message of them would keep everybody waiting."""
    empty = raw_page(b"", b"")
    reader = OggReader()
    list(reader.read(page([b"first"], FIRST)))
    assert list(reader.read(empty * 4000 + page([b"sound"]))) == [b"sound"]
    with pytest.raises(BadMessage):
        list(reader.read(empty * 5000))


def test_pages_that_are_nearly_right_come_out_the_same_in_any_pieces() -> None:
    """The same for hours: ``python -m fuzz.fuzz_ogg``."""
    files = [paged([b"a" * 300, b"", b"b" * 255, b"c"], 3), headers() + page([b"sound"] * 5)]
    for data in itertools.islice(mutations(files, seed=1), 500):
        whole = mended(data)
        assert read_in_steps(whole, 7) == read_in_steps(whole, max(1, len(whole)))


def read_in_steps(data: bytes, step: int) -> tuple[list[bytes], bool]:
    reader, made = OggReader(), []
    try:
        for at in range(0, len(data), step):
            made += reader.read(data[at : at + step])
    except BadMessage:
        return made, True
    return made, False


def fujielab_page(packet: bytes) -> bytes:
    """As a client of Moshi's writes it: one segment, whatever the packet's length."""
    return raw_page(bytes([min(len(packet), 255)]), packet)


@pytest.mark.parametrize("size", [254, 255, 256, 300, 1000])
@pytest.mark.parametrize("cut", [1, 7, 5000])
def test_a_lenient_reader_takes_pages_without_an_end(size: int, cut: int) -> None:
    """Each packet whole, however the bytes come; one that ends with its page by the next one at the latest."""
    packets = [bytes([number]) * (size + number) for number in range(1, 5)]
    data = headers() + b"".join(map(fujielab_page, packets)) + page([b"end"])
    reader, read = OggReader(lenient=True), []
    for at in range(0, len(data), cut):
        read += reader.read(data[at : at + cut])
    assert read[2:] == [*packets, b"end"]


def test_a_lenient_reader_reads_a_sound_stream_as_any_other() -> None:
    packets = [bytes([number]) * (number * 40) for number in range(1, 20)]
    data = headers() + b"".join(page([packet]) for packet in packets)
    assert list(OggReader(lenient=True).read(data)) == list(OggReader().read(data))


def test_a_lenient_reader_keeps_little_of_what_is_none() -> None:
    reader = OggReader(lenient=True)
    list(reader.read(headers()))
    with pytest.raises(BadMessage):
        list(reader.read(bytes(2 * MAX_SURPLUS_BYTES)))


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 510, 5000])
def test_a_page_holds_a_packet_of_any_size(size: int) -> None:
    writer, packet = OggWriter(1), bytes(range(256)) * 20
    data = writer.page(b"OpusHead", 0) + writer.page(packet[:size], 960)
    assert list(OggReader().read(data)) == [b"OpusHead", packet[:size]]
    assert mended(data) == data
