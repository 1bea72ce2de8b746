"""One Ogg/Opus stream in either direction (RFC 7845): mono float32 at 24 kHz. Knows nothing of who sends it.

As in Kyutai's servers the header of what comes in is not obeyed: all channels come out as one, and the start is not cut
off, for writers claim more of it than they make.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.errors import BadMessage
from rtc_server.media import libopus
from rtc_server.protocols.ogg import OggReader, OggWriter

_HEADERS: Final = (b"OpusHead", b"OpusTags")
"""RFC 7845, section 5."""
_PRE_SKIP: Final = 312
"""What libopus looks ahead for speech, in samples at 48 kHz: 6.5 ms."""
_PACKET_SAMPLES: Final = audio.FRAME_SAMPLES // 2
"""40 ms, as Kyutai's writer has them: Opus codes no 80 ms in one frame."""
_MAX_HEADERS: Final = 1024
"""In a row; a stream has two, and as many again where another is chained to it."""


class OggOpusReader:
    """One stream; it is dead after the first error. ``lenient``: as :class:`OggReader`. Raises OpusUnavailable."""

    def __init__(self, lenient: bool = False) -> None:
        self._packets = OggReader(lenient)
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


class OggOpusWriter:
    """The model's voice as a stream. Raises OpusUnavailable."""

    def __init__(self, bitrate: int, complexity: int = libopus.COMPLEXITY, serial: int = 1) -> None:
        self._encoder = libopus.Encoder(audio.MODEL_RATE_HZ, bitrate, complexity)
        # What goes over TCP loses nothing: redundancy against loss would only cost bits.
        self._encoder.set_expected_loss(0)
        self._pages = OggWriter(serial)
        self._granule = 0

    def headers(self) -> bytes:
        """The two header pages (RFC 7845, section 5), before any audio."""
        head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, _PRE_SKIP, audio.MODEL_RATE_HZ, 0, 0)
        vendor = b"rtc-server"
        tags = struct.pack(f"<8sI{len(vendor)}sI", b"OpusTags", len(vendor), vendor, 0)
        return self._pages.page(head, 0) + self._pages.page(tags, 0)

    def encode(self, frame: FloatArray) -> bytes:
        """The pages of one frame: 1,920 samples, mono float32 at 24 kHz within ±1."""
        pages = []
        for packet in frame.reshape(-1, _PACKET_SAMPLES):
            self._granule += _PACKET_SAMPLES * libopus.RTP_CLOCK_HZ // audio.MODEL_RATE_HZ
            pages.append(self._pages.page(self._encoder.encode(packet), self._granule))
        return b"".join(pages)
