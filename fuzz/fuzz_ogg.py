"""``python -m fuzz.fuzz_ogg``: Ogg pages, with the checksums mended, as WebSocket clients send them and as files.

A stream is heard, or refused with a BadMessage; in whatever pieces it comes, the same comes out of it.
"""

from __future__ import annotations

import io

import atheris

from fuzz.harness import fuzz

with atheris.instrument_imports(include=["rtc_server"]):
    from rtc_server.decoding.findings import Refused
    from rtc_server.decoding.media_file import MediaFile
    from rtc_server.decoding.structure import parts_of
    from rtc_server.errors import BadMessage
    from rtc_server.media.ogg_opus import OggOpusReader
    from rtc_server.protocols.ogg import MAX_PACKET_BYTES, OggReader

import numpy as np

from lab.inputs.files import encode, noise
from lab.inputs.ogg import FIRST, HEAD, mended, page, raw_page
from rtc_server.audio import FloatArray

_MOST_SAMPLES = 2880
"""Of one packet: 120 ms."""
_FILE_EVERY = 4


def _packets(data: bytes, step: int) -> tuple[list[bytes], bool]:
    """What comes out, and whether it ends in an error."""
    reader, made = OggReader(), []
    try:
        for at in range(0, len(data), step):
            for packet in reader.read(data[at : at + step]):
                assert len(packet) <= MAX_PACKET_BYTES
                made.append(packet)
    except BadMessage:
        return made, True
    assert len(reader._bytes) < 27 + 255 + 255 * 255
    return made, False


def _heard(data: bytes) -> list[FloatArray]:
    reader, blocks = OggOpusReader(), []
    try:
        for pcm in reader.read(data):
            assert pcm.dtype == np.float32
            assert 0 < pcm.size <= _MOST_SAMPLES
            blocks.append(pcm)
    except BadMessage:
        pass
    return blocks


def test_one(data: bytes) -> None:
    step = 1 + (data[0] if data else 0)
    data = mended(data[1:])
    whole = _packets(data, max(1, len(data)))
    assert _packets(data, step) == whole
    assert len(_heard(data)) <= len(whole[0])
    parts = parts_of(io.BytesIO(data))
    assert not parts or parts[-1].end == len(data)
    if step % _FILE_EVERY:  # far slower than the rest
        return
    try:
        for block in MediaFile(io.BytesIO(data)).blocks():
            assert np.isfinite(block).all()
            assert np.abs(block).max(initial=0) <= 1
    except Refused:
        pass


def _seeds() -> list[bytes]:
    opus = encode(noise(0.2, rate_hz=48_000), "ogg", "libopus", 48_000)
    stereo = encode(noise(0.2, rate_hz=48_000), "ogg", "libopus", 48_000, "stereo")
    flac = encode(noise(0.2, rate_hz=16_000), "ogg", "flac", 16_000)
    multiplexed = page([HEAD], FIRST, 1) + page([b"other"], FIRST, 2) + page([b"\xfc" * 100] * 3, 0, 1)
    torn = page([HEAD], FIRST) + raw_page(b"\xff\xff", bytes(510)) + raw_page(b"\xff\x01", bytes(256), 1)
    return [b"\x0f" + made for made in (opus, stereo, flac, opus + flac, multiplexed, torn)]


_WORDS = (
    b"OggS\0",
    b"OpusHead",
    b"OpusTags",
    b"\x7fFLAC",
    b"\xff\xff\xff",
    b"\0\0\0\0\0\0\0\0",
    b"\x01vorbis",
    b"\x02",
)


if __name__ == "__main__":
    fuzz(test_one, _seeds(), _WORDS)
