"""The outbound Opus encoder: mono speech at the model's rate, one packet for each 20 ms.

FFmpeg's libopus does the work. The stream is described to peers as opus/48000/2, as RFC 7587 section 4.1
demands of every Opus stream; what is inside is mono at 24 kHz, which no receiver needs to be told.
"""

from __future__ import annotations

import fractions
from typing import Final

import av

from rtc_server import audio
from rtc_server.audio import FloatArray

RTP_CLOCK_HZ: Final = 48_000
"""RFC 7587, section 4.1: the RTP clock of Opus is 48 kHz whatever is inside."""
PACKET_TICKS: Final = RTP_CLOCK_HZ * audio.PACKET_MS // 1000
RTP_TIME_BASE: Final = fractions.Fraction(1, RTP_CLOCK_HZ)
_MODEL_TIME_BASE: Final = fractions.Fraction(1, audio.MODEL_RATE_HZ)


class OpusEncoder:
    """Encodes 480 samples a call. Not safe to share between threads."""

    def __init__(self, bitrate: int) -> None:
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, av.AudioCodecContext)
        codec.sample_rate = audio.MODEL_RATE_HZ
        codec.layout = "mono"
        codec.format = "s16"
        codec.bit_rate = bitrate
        codec.time_base = _MODEL_TIME_BASE
        # In-band FEC costs bits only when a loss is expected; 5 % is what mobile networks show.
        codec.options = {"application": "voip", "frame_duration": "20", "vbr": "on", "fec": "1", "packet_loss": "5"}
        self._codec = codec
        self._pts = 0

    def encode(self, pcm: FloatArray) -> bytes:
        """One Opus packet of exactly 480 float32 samples within ±1."""
        frame = av.AudioFrame.from_ndarray(audio.to_int16(pcm)[None, :], format="s16", layout="mono")
        frame.sample_rate = audio.MODEL_RATE_HZ
        frame.time_base = _MODEL_TIME_BASE
        frame.pts = self._pts
        self._pts += audio.PACKET_SAMPLES
        (packet,) = self._codec.encode(frame)
        return bytes(packet)
