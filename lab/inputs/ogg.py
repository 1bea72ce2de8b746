"""Ogg pages, well made or not; see RFC 3533, section 6."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import sphn

from rtc_server import audio
from rtc_server.audio import FloatArray

CONTINUED, FIRST, LAST = 1, 2, 4
HEAD: Final = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, 48_000, 0, 0)
TAGS: Final = b"OpusTags" + struct.pack("<I", 4) + b"test" + struct.pack("<I", 0)


def lacing(size: int) -> bytes:
    return b"\xff" * (size // 255) + bytes([size % 255])


def raw_page(table: bytes, body: bytes, flags: int = 0, serial: int = 1) -> bytes:
    """Without a checksum: nobody here looks at it."""
    return b"OggS\0" + struct.pack("<BqIII", flags, 0, serial, 0, 0) + bytes([len(table)]) + table + body


def page(packets: Sequence[bytes], flags: int = 0, serial: int = 1) -> bytes:
    """Whole packets, 255 segments at most."""
    return raw_page(b"".join(lacing(len(packet)) for packet in packets), b"".join(packets), flags, serial)


def headers(serial: int = 1) -> bytes:
    return page([HEAD], FIRST, serial) + page([TAGS], 0, serial)


def ogg_opus(pcm: FloatArray) -> bytes:
    """``pcm`` (whole frames, 24 kHz) as Kyutai's clients make a stream of it."""
    writer = sphn.OpusStreamWriter(audio.MODEL_RATE_HZ)
    return b"".join(writer.append_pcm(frame) for frame in pcm.reshape(-1, audio.FRAME_SAMPLES))


def mended(data: bytes) -> bytes:
    """``data`` with the right checksum in every page that is in it, so that readers who look at it go on."""
    made, at = bytearray(data), 0
    while (at := made.find(b"OggS", at)) >= 0 and at + 27 <= len(made):
        table = made[at + 27 : at + 27 + made[at + 26]]
        end = at + 27 + len(table) + sum(table)
        made[at + 22 : at + 26] = bytes(4)
        made[at + 22 : at + 26] = _crc(made[at:end]).to_bytes(4, "little")
        at = max(at + 4, end)
    return bytes(made)


def _crc(page: bytes | bytearray) -> int:
    """RFC 3533, section 6, field 7: polynomial 0x04c11db7, neither reflected nor inverted."""
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC_TABLE[crc >> 24 ^ byte]
    return crc


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(crc)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()
