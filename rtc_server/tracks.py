"""The aiortc tracks: the pump that reads a remote track, and the paced track that is sent.

Converts between what the WebRTC stack handles (frames at the peer's rate, packets on a clock) and 24 kHz mono.
Knows nothing of sessions, engines or signaling.
"""

from __future__ import annotations

import asyncio
import fractions
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtc_server import audio
from rtc_server.audio import FloatArray, Resampler
from rtc_server.opus import PACKET_TICKS, RTP_TIME_BASE, OpusEncoder
from rtc_server.playout import PlayoutBuffer

logger = logging.getLogger(__name__)

_PACKET_S: Final = audio.PACKET_MS / 1000
_CATCH_UP_PACKETS: Final = 5
"""Packets that may leave at once after the event loop was held up; what is older is skipped."""
_MODEL_TIME_BASE: Final = fractions.Fraction(1, audio.MODEL_RATE_HZ)


def mono_24k(frame: av.AudioFrame, resampler: Resampler | None) -> tuple[FloatArray, Resampler]:
    """``frame`` (any rate, any number of channels) as mono float32 at 24 kHz, and the resampler to pass in
    with the next frame: a new one when the rate has changed."""
    decoded: npt.NDArray[Any] = frame.to_ndarray()
    samples = audio.from_int16(decoded) if decoded.dtype == np.int16 else decoded
    channels = frame.layout.nb_channels
    if channels > 1:  # planar: [channels, n]; packed: [1, n * channels]
        by_channel = samples if frame.format.is_planar else samples.reshape(-1, channels).T
        samples = by_channel.mean(axis=0, dtype=np.float32)
    if resampler is None or resampler.from_hz != frame.sample_rate:
        resampler = Resampler(frame.sample_rate, audio.MODEL_RATE_HZ)
    return resampler.process(np.ascontiguousarray(samples.reshape(-1), dtype=np.float32)), resampler


async def pump(track: MediaStreamTrack, sink: Callable[[FloatArray], None]) -> None:
    """Read ``track`` until it ends, giving ``sink`` mono float32 at 24 kHz as it comes.

    Must run for as long as the track lives: aiortc queues without a bound what is not read. Safe to cancel.
    """
    resampler: Resampler | None = None
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        if isinstance(frame, av.AudioFrame) and frame.samples:
            pcm, resampler = mono_24k(frame, resampler)
            sink(pcm)


class PacketClock:
    """When each 20 ms packet is due, and which are skipped because they never had a chance. Pure."""

    def __init__(self, now: float) -> None:
        self._start = now
        self._next = 0
        self.skipped = 0

    def next(self, now: float) -> tuple[int, float]:
        """The number of the next packet and how many seconds it has to wait."""
        due = int((now - self._start) / _PACKET_S)
        if due - self._next > _CATCH_UP_PACKETS:
            self.skipped += due - self._next
            self._next = due
        number, self._next = self._next, self._next + 1
        return number, max(0.0, self._start + number * _PACKET_S - now)


class OutboundTrack(MediaStreamTrack):
    """The model's voice as 20 ms packets, paced on a monotonic clock from the first time it is asked.

    With ``encoder``, packets come out encoded: aiortc then has nothing to compute. Without, raw frames come
    out for aiortc to encode, for telephone codecs. Silence is sent when there is nothing to say, and its
    timestamps go on. ``on_voice`` is called once, when the model's first samples leave.
    """

    kind = "audio"

    def __init__(
        self, playout: PlayoutBuffer, encoder: OpusEncoder | None, on_voice: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._playout = playout
        self._encoder = encoder
        self._on_voice: Callable[[], None] | None = on_voice
        self._clock: PacketClock | None = None

    async def recv(self) -> av.Packet[Any] | av.AudioFrame:
        """The next packet, when it is due. Raises MediaStreamError once the track is stopped."""
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        self._clock = self._clock or PacketClock(now)
        number, wait_s = self._clock.next(now)
        if wait_s:
            await asyncio.sleep(wait_s)
        pcm, voiced = self._playout.pull(audio.PACKET_SAMPLES)
        if voiced and self._on_voice is not None:
            self._on_voice()
            self._on_voice = None
        return self._frame(pcm, number) if self._encoder is None else self._packet(self._encoder, pcm, number)

    @staticmethod
    def _packet(encoder: OpusEncoder, pcm: FloatArray, number: int) -> av.Packet[Any]:
        packet = av.Packet(encoder.encode(pcm))
        packet.pts = number * PACKET_TICKS
        packet.time_base = RTP_TIME_BASE
        return packet

    @staticmethod
    def _frame(pcm: FloatArray, number: int) -> av.AudioFrame:
        frame = av.AudioFrame.from_ndarray(audio.to_int16(pcm)[None, :], format="s16", layout="mono")
        frame.sample_rate = audio.MODEL_RATE_HZ
        frame.pts = number * audio.PACKET_SAMPLES
        frame.time_base = _MODEL_TIME_BASE
        return frame
