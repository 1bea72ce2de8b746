"""One Ogg/Opus stream as it comes in, decoded to mono float32 at 24 kHz. Knows nothing of who sends it.

As in Kyutai's servers the header is not obeyed: all channels come out as one, and the start is not cut off, for writers
claim more of it than they make.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.errors import BadMessage
from rtc_server.media import libopus
from rtc_server.protocols.ogg import OggReader

_HEADERS: Final = (b"OpusHead", b"OpusTags")
"""RFC 7845, section 5."""
_MAX_HEADERS: Final = 1024
"""In a row; a stream has two, and as many again where another is chained to it."""


class OggOpusReader:
    """One stream; it is dead after the first error. Raises OpusUnavailable."""

    def __init__(self) -> None:
        self._packets = OggReader()
        self._decoder = libopus.Decoder(audio.MODEL_RATE_HZ)
        self._headers = 0

    def read(self, data: bytes) -> Iterator[FloatArray]:
        """The audio that ``data`` completes, a packet (at most 120 ms) at a time. Raises BadMessage."""
        for packet in self._packets.read(data):
            if packet.startswith(_HEADERS):
                self._headers += 1
                if self._headers > _MAX_HEADERS:
                    raise BadMessage("The Ogg stream has nothing but headers.")
                continue
            self._headers = 0
            try:
                yield self._decoder.decode(packet)
            except libopus.OpusError:
                raise BadMessage("The Ogg stream has a packet that is not Opus.") from None
