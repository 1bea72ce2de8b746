"""The outbound track: paces the model's voice on a clock, as encoded packets or raw frames.

Knows nothing of sessions, engines or signaling.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import logging
from collections.abc import Callable
from typing import Any, Final

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media.microphone import START_PATIENCE_S
from rtc_server.media.opus import DTX_BYTES, PACKET_TICKS, RTP_TIME_BASE, OpusEncoder
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.system.wheel import Wheel

logger = logging.getLogger(__name__)

_PACKET_S: Final = audio.PACKET_MS / 1000
_CATCH_UP_PACKETS: Final = 5
"""Packets that may leave at once after the event loop was held up; what is older is skipped."""
_QUIET_PEAK: Final = 0.001
"""-60 dBFS: not audible."""
_QUIET_PACKETS: Final = 10
_LOSS_DECAY: Final = 0.8
"""A second later a burst of losses counts for so much: error correction must not go before the next burst."""
_HEAVY_LOSS: Final = 0.1
_HEAVY_LOSS_SHARE: Final = 0.75
_START_TIMEOUT_S: Final = START_PATIENCE_S + 1.0
_MODEL_TIME_BASE: Final = fractions.Fraction(1, audio.MODEL_RATE_HZ)


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
    """The model's voice in pieces of 20 ms, paced on a monotonic clock that starts with the model's first frame, at the
    next tick of ``wheel``.

    That puts packets behind frames at a known distance, within a tick: a clock with a phase of its own would cost up to
    20 ms of reserve. And all tracks of a process are woken together.
    ``on_voice`` is called once, when the model's first samples leave.
    """

    kind = "audio"

    def __init__(
        self,
        playout: PlayoutBuffer,
        wheel: Wheel,
        on_voice: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._wheel = wheel
        self._playout = playout
        self._on_voice: Callable[[], None] | None = on_voice
        self._clock: PacketClock | None = None
        self._started = asyncio.Event()

    def start(self) -> None:
        """The first frame is there. Without it the clock starts by itself after 3 s."""
        self._started.set()

    def stop(self) -> None:
        self._started.set()
        super().stop()

    async def _next(self) -> tuple[int, FloatArray]:
        """The number of the next packet and its 480 samples, when it is due. Raises MediaStreamError once the
        track is stopped."""
        if self._clock is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_TIMEOUT_S):
                    await self._started.wait()
            self._clock = PacketClock(self._wheel.snap(self._wheel.now() + self._playout.phase_s))
        if self.readyState != "live":
            raise MediaStreamError
        now = self._wheel.now()
        number, wait_s = self._clock.next(now)
        if wait_s:
            await self._wheel.sleep_until(now + wait_s)
            now = self._wheel.now()
        pcm, voiced = self._playout.pull(audio.PACKET_SAMPLES, now)
        if voiced and self._on_voice is not None:
            self._on_voice()
            self._on_voice = None
        return number, pcm


class EncodedTrack(OutboundTrack):
    """Opus packets, for :class:`rtc_server.webrtc.transceivers.LeanSender`: the WebRTC stack has nothing to compute."""

    def __init__(
        self,
        playout: PlayoutBuffer,
        encoder: OpusEncoder,
        bitrate: int,
        wheel: Wheel,
        on_voice: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(playout, wheel, on_voice)
        self._encoder = encoder
        self._bitrate = bitrate
        self._loss = 0.0
        self._quiet_packets = 0
        self._may_pause = False
        self._talking = False

    def on_loss_report(self, fraction: float) -> None:
        """The peer has lost so much (0 to 1) since its last report: more error correction, and on a path that
        loses a lot, which is likely to be full, fewer bits."""
        self._loss = max(fraction, self._loss * _LOSS_DECAY)
        self._encoder.set_expected_loss(round(self._loss * 100))
        share = _HEAVY_LOSS_SHARE if self._loss > _HEAVY_LOSS else 1.0
        self._encoder.set_bitrate(round(self._bitrate * share))

    async def next_packet(self) -> tuple[bytes, int, bool] | None:
        """Payload, RTP ticks, marker. None in a silence that need not be sent (DTX); timestamps go on through it,
        and the first packet after it is marked (RFC 3551, section 4.1)."""
        number, pcm = await self._next()
        self._follow_silence(pcm)
        payload = self._encoder.encode(pcm)
        if len(payload) <= DTX_BYTES:
            self._talking = False
            return None
        marker, self._talking = not self._talking, True
        return payload, number * PACKET_TICKS, marker

    def _follow_silence(self, pcm: FloatArray) -> None:
        """Let the encoder pause in silence, and only there: left to itself it takes a steady tone for noise."""
        self._quiet_packets = self._quiet_packets + 1 if _is_quiet(pcm) else 0
        may_pause = self._quiet_packets >= _QUIET_PACKETS
        if may_pause is not self._may_pause:
            self._may_pause = may_pause
            self._encoder.set_dtx(may_pause)

    async def recv(self) -> av.Packet[Any]:
        """The same as an ``av.Packet``, for a sender that is not lean."""
        while (packet := await self.next_packet()) is None:
            pass
        encoded = av.Packet(packet[0])
        encoded.pts = packet[1]
        encoded.time_base = RTP_TIME_BASE
        return encoded


def _is_quiet(pcm: FloatArray) -> bool:
    """Whether no sample is audible. Where the mean is not, the peak need not be looked for."""
    if float(pcm.dot(pcm)) >= _QUIET_PEAK**2 * pcm.size:
        return False
    return float(np.abs(pcm).max()) < _QUIET_PEAK


class RawTrack(OutboundTrack):
    """Raw frames, for the WebRTC stack to encode: telephone codecs."""

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms, when they are due. Raises MediaStreamError once the track is stopped."""
        number, pcm = await self._next()
        frame = av.AudioFrame.from_ndarray(audio.to_int16(pcm)[None, :], format="s16", layout="mono")
        frame.sample_rate = audio.MODEL_RATE_HZ
        frame.pts = number * audio.PACKET_SAMPLES
        frame.time_base = _MODEL_TIME_BASE
        return frame
