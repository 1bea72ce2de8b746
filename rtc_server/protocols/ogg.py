"""Ogg (RFC 3533) as it comes in over a stream: bytes in, packets out. Knows nothing of what is in a packet.

No checksum is looked at: what comes over TCP has one, and a table of CRCs in Python costs more than the decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rtc_server.errors import BadMessage

MAX_PACKET_BYTES: Final = 1024 * 1024
"""Audio packets are far smaller; comments may hold a picture."""
MAX_IDLE_PAGES: Final = 4096
"""In a row that complete no packet: enough for the largest packet in the small pages of any writer."""
_HEADER_BYTES: Final = 27
_CAPTURE_PATTERN: Final = b"OggS\0"
"""And the version, which is 0 (section 6)."""
_CONTINUED: Final = 1
_FIRST: Final = 2
_FULL_SEGMENT: Final = 255


class OggReader:
    """One physical stream, of logical streams one after the other, as RFC 7845, section 3, has them."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._serial: bytes | None = None
        self._packet: bytearray | None = None
        self._idle_pages = 0

    def read(self, data: bytes) -> Iterator[bytes]:
        """The packets that ``data`` completes. Raises BadMessage; the stream is dead then."""
        self._bytes += data
        at = 0
        while (size := self._page_bytes(at)) and at + size <= len(self._bytes):
            self._idle_pages += 1
            if self._idle_pages > MAX_IDLE_PAGES:
                raise BadMessage("The Ogg stream has too many pages with nothing in them.")
            yield from self._page(bytes(self._bytes[at : at + size]))
            at += size
        del self._bytes[:at]

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
            # What a lost page would have completed; without loss there is none.
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
