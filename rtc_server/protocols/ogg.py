"""Ogg (RFC 3533) over a stream: bytes to packets, and packets to pages. Knows nothing of the payload.

Of what comes in no checksum is looked at: what comes over TCP has one, and a table of CRCs in Python costs more than
the decoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from rtc_server.errors import BadMessage

MAX_PACKET_BYTES: Final = 1024 * 1024
"""Audio packets are far smaller; comments may hold a picture."""
MAX_SURPLUS_BYTES: Final = 8192
"""Behind a page, where that is taken: more than any packet of Opus has (RFC 6716, section 3.4)."""
MAX_IDLE_PAGES: Final = 4096
"""In a row that complete no packet: enough for the largest packet in the small pages of any writer."""
_HEADER_BYTES: Final = 27
_CAPTURE_PATTERN: Final = b"OggS\0"
"""And the version, which is 0 (section 6)."""
_CONTINUED: Final = 1
_FIRST: Final = 2
_FULL_SEGMENT: Final = 255
_CHECKSUM_AT: Final = 22


class OggReader:
    """One physical stream, of logical streams one after the other, as RFC 7845, section 3, has them.

    ``lenient``: takes what some writers make of a packet of 255 bytes or more: a page whose table says 255, and all of
    the packet behind it, up to the next page.
    """

    def __init__(self, lenient: bool = False) -> None:
        self._lenient = lenient
        self._bytes = bytearray()
        self._serial: bytes | None = None
        self._packet: bytearray | None = None
        self._idle_pages = 0

    def read(self, data: bytes) -> Iterator[bytes]:
        """The packets that ``data`` completes. Raises BadMessage; the stream is dead then."""
        self._bytes += data
        at = 0
        while True:
            if self._lenient and self._packet:
                surplus = self._surplus_bytes(at)
                if surplus is None:
                    break
                if surplus:
                    yield bytes(self._packet + self._bytes[at : at + surplus])
                    self._packet = bytearray()
                    at += surplus
            size = self._page_bytes(at)
            if not size or at + size > len(self._bytes):
                break
            self._idle_pages += 1
            if self._idle_pages > MAX_IDLE_PAGES:
                raise BadMessage("The Ogg stream has too many pages with nothing in them.")
            yield from self._page(bytes(self._bytes[at : at + size]))
            at += size
        del self._bytes[:at]

    def _surplus_bytes(self, at: int) -> int | None:
        """How much of an unfinished packet stands behind its page; None while the next page is not there."""
        if _CAPTURE_PATTERN.startswith(bytes(self._bytes[at : at + len(_CAPTURE_PATTERN)])):
            return 0
        ends = self._bytes.find(_CAPTURE_PATTERN, at, at + MAX_SURPLUS_BYTES)
        if ends >= 0:
            return ends - at
        if len(self._bytes) - at >= MAX_SURPLUS_BYTES:
            raise BadMessage("The data is no Ogg stream.")
        return None

    def _page_bytes(self, at: int) -> int:
        """How long the page is that begins there; 0 while that is not known yet."""
        pattern = bytes(self._bytes[at : at + len(_CAPTURE_PATTERN)])
        if not _CAPTURE_PATTERN.startswith(pattern):
            raise BadMessage("The data is no Ogg stream.")
        if len(self._bytes) < at + _HEADER_BYTES:
            return 0
        table_ends = at + _HEADER_BYTES + self._bytes[at + 26]
        if len(self._bytes) < table_ends:
            return 0
        return table_ends - at + sum(self._bytes[at + _HEADER_BYTES : table_ends])

    def _page(self, page: bytes) -> Iterator[bytes]:
        flags, serial = page[5], page[14:18]
        if flags & _FIRST:
            self._serial, self._packet = serial, None
        elif serial != self._serial:
            return
        if not flags & _CONTINUED:
            # What a lost page would have completed; without loss there is none, but in a page without an end.
            if self._lenient and self._packet:
                yield bytes(self._packet)
            self._packet = bytearray()
        at = _HEADER_BYTES + page[26]
        for segment in page[_HEADER_BYTES:at]:
            if self._packet is not None:
                self._packet += page[at : at + segment]
                if len(self._packet) > MAX_PACKET_BYTES:
                    raise BadMessage("The Ogg stream has a packet that is too large.")
            at += segment
            if segment < _FULL_SEGMENT:
                if self._packet is not None:
                    self._idle_pages = 0
                    yield bytes(self._packet)
                self._packet = bytearray()


class OggWriter:
    """One logical stream, a packet on a page, with checksums: readers of others look at them."""

    def __init__(self, serial: int) -> None:
        self._serial = serial
        self._pages = 0

    def page(self, packet: bytes, granule: int) -> bytes:
        """``packet``, at most 65,024 bytes, as the next page; the first begins the stream. ``granule``: the position at
        its end, 0 for headers."""
        segments = len(packet) // _FULL_SEGMENT + 1
        table = bytes([_FULL_SEGMENT] * (segments - 1) + [len(packet) % _FULL_SEGMENT])
        flags = 0 if self._pages else _FIRST
        head = struct.pack("<5sBqIIIB", _CAPTURE_PATTERN, flags, granule, self._serial, self._pages, 0, segments)
        self._pages += 1
        page = bytearray(head + table + packet)
        struct.pack_into("<I", page, _CHECKSUM_AT, _checksum(page))
        return bytes(page)


def _checksum(page: bytes | bytearray) -> int:
    """RFC 3533, section 6: the polynomial 0x04c11db7, from 0, not reflected, over the page with zeros in its place."""
    crc = 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC_TABLE[crc >> 24 ^ byte]
    return crc


def _crc_of(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
    return crc


_CRC_TABLE: Final = tuple(_crc_of(byte) for byte in range(256))
