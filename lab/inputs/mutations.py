"""Files that are nearly what they say: seeds of every container, and what chance makes of them."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from lab.inputs.files import encode, encode_tracks, id3, noise

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFF00, 0x10000000)
_MAX_EDITS = 8


def claims_gigabytes() -> bytes:
    """72 bytes: a WAV whose title is two gigabytes long."""
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, 48_000, 2, 16)
    title = b"LIST" + struct.pack("<I", 0x7FFFFF00) + b"INFOINAM" + struct.pack("<I", 0x7FFFFE00) + b"name" * 3
    return b"RIFF" + struct.pack("<I", 0x7FFFFFF0) + b"WAVE" + form + title


def seeds() -> list[bytes]:
    """A third of a second in each container, some kilobytes at most."""
    made = [
        encode(noise(0.3, rate_hz=rate_hz), container, codec, rate_hz, layout)
        for container, codec, rate_hz, layout in (
            ("wav", "pcm_s16le", 8_000, "mono"),
            ("wav", "adpcm_ms", 8_000, "stereo"),
            ("w64", "pcm_mulaw", 8_000, "mono"),
            ("aiff", "pcm_s16be", 8_000, "mono"),
            ("au", "pcm_s16be", 8_000, "mono"),
            ("caf", "pcm_s16le", 8_000, "mono"),
            ("flac", "flac", 16_000, "mono"),
            ("wv", "wavpack", 16_000, "mono"),
            ("tta", "tta", 16_000, "mono"),
            ("mp3", "libmp3lame", 44_100, "mono"),
            ("adts", "aac", 44_100, "mono"),
            ("mp4", "aac", 44_100, "stereo"),
            ("mov", "alac", 16_000, "mono"),
            ("ogg", "libopus", 48_000, "mono"),
            ("ogg", "flac", 16_000, "mono"),
            ("webm", "libopus", 48_000, "stereo"),
            ("matroska", "ac3", 48_000, "5.1"),
            ("mpegts", "mp2", 44_100, "mono"),
            ("flv", "aac", 44_100, "mono"),
            ("avi", "mp2", 44_100, "mono"),
            ("asf", "mp2", 44_100, "mono"),
            ("nut", "pcm_s16le", 8_000, "mono"),
        )
    ]
    two = encode_tracks([noise(0.3, rate_hz=48_000), noise(0.3, 1, rate_hz=48_000)], languages=["eng", "deu"])
    return [*made, two, id3(200) + made[10], made[0] + made[13], claims_gigabytes()]


def mutations(files: list[bytes], seed: int) -> Iterator[bytes]:
    """Without end, the same for the same ``seed``."""
    chance = random.Random(seed)
    while True:
        data = bytearray(chance.choice(files))
        for _ in range(chance.randint(1, _MAX_EDITS)):
            _edit(data, files, chance)
        yield bytes(data)


def _edit(data: bytearray, files: list[bytes], chance: random.Random) -> None:
    # Most of what a demuxer goes by is at the beginning.
    at = min(len(data), int(len(data) * chance.random() ** chance.choice((1, 3))))
    match chance.randrange(7):
        case 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        case 1:
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << chance.randrange(8)])
        case 2:
            size = chance.choice((1, 2, 4, 8))
            value = chance.choice(_EXTREMES) & (1 << 8 * size) - 1
            data[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))
        case 3:
            del data[at : at + chance.randrange(1, 64)]
        case 4:
            del data[at:]
        case 5:
            data[at:at] = data[at : at + chance.randrange(1, 256)]
        case _:
            other = chance.choice(files)
            start = chance.randrange(len(other))
            data[at:at] = other[start : start + chance.randrange(1, 1024)]
