"""Where recordings end and begin in a file, by its outermost structure alone; every byte is in one part."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.inputs.files import encode, id3, noise
from lab.inputs.ogg import FIRST, page
from rtc_server.decoding.findings import Refusal
from rtc_server.decoding.structure import Part, parts_of, why_unreadable

RATE = 48_000
FILES = {
    "wav": encode(noise(1)),
    "aiff": encode(noise(1), "aiff", "pcm_s16be"),
    "ogg": encode(noise(1, rate_hz=RATE), "ogg", "libopus", RATE),
    "webm": encode(noise(1, rate_hz=RATE), "webm", "libopus", RATE),
    "mp4": encode(noise(1, rate_hz=RATE), "mp4", "aac", RATE),
    "flv": encode(noise(1, rate_hz=44_100), "flv", "aac", 44_100),
}
WITHOUT_LENGTH = {
    "flac": encode(noise(1), "flac", "flac"),
    "mp3": encode(noise(1, rate_hz=44_100), "mp3", "libmp3lame", 44_100),
    "avi": encode(noise(1, rate_hz=44_100), "avi", "libmp3lame", 44_100),
    "amr": encode(noise(1, rate_hz=8000), "amr", "libopencore_amrnb", 8000),
    "wv": encode(noise(1), "wv", "wavpack"),
    "tta": encode(noise(1), "tta", "tta"),
    "voc": encode(noise(1), "voc", "pcm_u8"),
    "mpegts": encode(noise(1, rate_hz=44_100), "mpegts", "aac", 44_100),
}
WITH_LENGTH = {
    "caf": encode(noise(1), "caf"),
    "au": encode(noise(1), "au", "pcm_s16be"),
    "w64": encode(noise(1), "w64"),
}
ALL = {**FILES, **WITHOUT_LENGTH, **WITH_LENGTH}
BEGIN_WITH_A_MARK = dict(ALL)
del BEGIN_WITH_A_MARK["mpegts"]


def parts(data: bytes) -> list[Part]:
    return parts_of(io.BytesIO(data))


def edges(data: bytes) -> list[tuple[int, int]]:
    return [(part.start, part.end) for part in parts(data)]


@pytest.mark.parametrize("first", ALL)
def test_two_files_in_a_row_are_two_parts(first: str) -> None:
    """Whichever comes second; one that tells no length ends where the next begins."""
    one = ALL[first]
    for second, two in BEGIN_WITH_A_MARK.items():
        cut = [end for _, end in edges(one + two)]
        assert cut == [len(one), len(one) + len(two)], second
        assert not any(part.cut_off for part in parts(one + two))


def test_a_hole_in_a_recording_does_not_end_it() -> None:
    webm = bytearray(encode(noise(12, rate_hz=RATE), "webm", "libopus", RATE))
    cluster = webm.index(b"\x1f\x43\xb6\x75", webm.index(b"\x1f\x43\xb6\x75") + 4)
    webm[cluster - 2000 : cluster] = bytes(2000)
    assert edges(bytes(webm)) == [(0, len(webm))]


def test_tags_in_the_middle_are_messages_unless_sound_follows() -> None:
    """MPEG transport streams carry them as the songs change; players put them in front of each piece of AAC."""
    sound = WITHOUT_LENGTH["mpegts"]
    stream = sound[: 188 * 20] + id3(50) + sound[188 * 20 :]
    assert edges(stream) == [(0, len(stream))]
    aac = encode(noise(1, rate_hz=44_100), "adts", "aac", 44_100)
    assert len(parts(id3(1_500_000) + aac + id3(1_500_000) + aac)) == 2


@given(st.binary(max_size=3000))
def test_what_is_nothing_begins_nothing(junk: bytes) -> None:
    assert edges(b"\xff\xfb" + junk) == [(0, 2 + len(junk))]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("missing", [1, 100, 1000])
def test_a_file_that_breaks_off_is_told(kind: str, missing: int) -> None:
    data = FILES[kind][:-missing]
    assert edges(data) == [(0, len(data))]
    assert parts(data)[0].cut_off


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_recorder_that_could_not_go_back_has_not_broken_off(size: int) -> None:
    data = bytearray(FILES["wav"])
    at = data.index(b"data") + 4
    for offset in (4, at):
        data[offset : offset + 4] = size.to_bytes(4, "little")
    assert parts(bytes(data)) == [Part(0, len(data))]


def test_tags_are_skipped_and_one_that_is_longer_than_the_file_is_none() -> None:
    assert edges(id3(2_000_000) + id3(100) + b"\xff\xf1" * 50) == [(2_000_100, 2_000_200)]
    assert edges(id3(2_000_000)[:1000]) == [(0, 1000)]


def test_an_endless_number_of_recordings_has_an_end() -> None:
    chained = b"".join(page([b"x"], FIRST) + page([b"y"]) for _ in range(5000))
    made = parts(chained)
    assert len(made) == 4096
    assert made[-1].end == len(chained)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (FILES["webm"][FILES["webm"].index(b"\x1f\x43\xb6\x75") :], Refusal.NO_BEGINNING),
        (FILES["webm"][FILES["webm"].index(b"\xa3", FILES["webm"].index(b"\x1f\x43\xb6\x75")) :], Refusal.NO_BEGINNING),
        (FILES["ogg"][FILES["ogg"].index(b"OggS", FILES["ogg"].index(b"OggS", 4) + 4) :], Refusal.NO_BEGINNING),
        (b"\0\0\0\x10moof" + bytes(8) + b"\0\0\0\x10mdat" + bytes(8), Refusal.NO_BEGINNING),
        (FILES["mp4"][: FILES["mp4"].index(b"moov") - 100], Refusal.NO_INDEX),
        (FILES["wav"], None),
        (b"hello there, how are you?", None),
    ],
    ids=["a cluster", "a block", "a page", "a fragment", "no index", "wav", "text"],
)
def test_why_nobody_can_read_it(data: bytes, why: Refusal | None) -> None:
    assert why_unreadable(io.BytesIO(data), parts(data)[0]) is why


@given(st.binary(max_size=300), st.sampled_from(sorted(FILES)), st.integers(0, 2000), st.integers(0, 2000))
def test_whatever_is_in_it_the_parts_are_the_file(junk: bytes, kind: str, cut: int, at: int) -> None:
    whole = FILES[kind]
    data = (whole[: len(whole) - cut] + junk)[min(at, 64) :]
    made = edges(data)
    gaps = [data[end:start] for (_, end), (start, _) in pairwise([(0, 0), *made])]
    assert all(not gap or gap.startswith(b"ID3") for gap in gaps), "tags are in no part"
    assert made or not data
    assert all(start < end for start, end in made)
    assert not made or made[-1][1] == len(data)
