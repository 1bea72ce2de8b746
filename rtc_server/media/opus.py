"""The outbound Opus encoder: mono speech at the model's rate, one packet for each 20 ms.

The stream is described to peers as opus/48000/2, as RFC 7587 section 4.1 demands of every Opus stream; what is
inside is mono at 24 kHz, which no receiver needs to be told.
"""

from __future__ import annotations

import fractions
from typing import Any, Final, Protocol

import av

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media import libopus

RTP_CLOCK_HZ: Final = libopus.RTP_CLOCK_HZ
PACKET_TICKS: Final = RTP_CLOCK_HZ * audio.PACKET_MS // 1000
RTP_TIME_BASE: Final = fractions.Fraction(1, RTP_CLOCK_HZ)
DTX_BYTES: Final = 2
"""A packet this short says only that there is nothing to say; it need not be sent (RFC 6716, section 2.1.9)."""
_EXPECTED_LOSS_PERCENT: Final = 5
"""In-band FEC costs bits only when a loss is expected; this is what mobile networks show, until a report says more."""
_MODEL_TIME_BASE: Final = fractions.Fraction(1, audio.MODEL_RATE_HZ)


class OpusEncoder(Protocol):
    """Encodes 480 samples a call. Not safe to share between threads."""

    def encode(self, pcm: FloatArray) -> bytes:
        """One Opus packet of exactly 480 float32 samples within ±1."""

    def set_expected_loss(self, percent: int) -> None:
        """How much of its packets the peer loses: it decides how much error correction they carry."""

    def set_bitrate(self, bitrate: int) -> None:
        """In bit/s."""

    def set_dtx(self, on: bool) -> None:
        """Whether packets of a silence may be as short as :data:`DTX_BYTES`."""


def make_encoder(bitrate: int, complexity: int = libopus.COMPLEXITY) -> OpusEncoder:
    """The best encoder that this machine has. ``complexity``: 0 to 10, for one that has it."""
    if not libopus.available():
        return FallbackOpusEncoder(bitrate)
    encoder = libopus.Encoder(audio.MODEL_RATE_HZ, bitrate, complexity)
    encoder.set_expected_loss(_EXPECTED_LOSS_PERCENT)
    return encoder


class FallbackOpusEncoder:
    """By FFmpeg's wrapper, for a machine without libopus of its own: no DTX, and FEC for a fixed loss."""

    def __init__(self, bitrate: int) -> None:
        codec: Any = av.CodecContext.create("libopus", "w")
        codec.sample_rate = audio.MODEL_RATE_HZ
        codec.layout = "mono"
        codec.format = "s16"
        codec.bit_rate = bitrate
        codec.time_base = _MODEL_TIME_BASE
        codec.options = {
            "application": "voip",
            "frame_duration": str(audio.PACKET_MS),
            "vbr": "on",
            "fec": "1",
            "packet_loss": str(_EXPECTED_LOSS_PERCENT),
        }
        self._codec = codec
        self._pts = 0

    def encode(self, pcm: FloatArray) -> bytes:
        frame = av.AudioFrame.from_ndarray(audio.to_int16(pcm)[None, :], format="s16", layout="mono")
        frame.sample_rate = audio.MODEL_RATE_HZ
        frame.time_base = _MODEL_TIME_BASE
        frame.pts = self._pts
        self._pts += audio.PACKET_SAMPLES
        (packet,) = self._codec.encode(frame)
        return bytes(packet)

    def set_expected_loss(self, percent: int) -> None:
        """Fixed when the stream begins."""

    def set_bitrate(self, bitrate: int) -> None:
        """Fixed when the stream begins."""

    def set_dtx(self, on: bool) -> None:
        """Not offered by FFmpeg while a stream runs."""
