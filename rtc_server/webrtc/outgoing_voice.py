"""The voice that goes out over a connection: one of its own, or one that several connections share.

Clients that only listen to a session all hear the same. So it waits in one playout buffer, leaves on one clock and is
encoded once (:class:`SharedVoice`); each connection puts its own header before a packet and encrypts it. A client that
comes later hears it from the next packet on, as after a loss, which Opus is made for. Knows no sessions, and nothing of
peers but that each takes a track.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtc_server.audio import FloatArray
from rtc_server.media.opus import OpusEncoder
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.system.wheel import Wheel
from rtc_server.tracks import EncodedTrack, OutboundTrack

logger = logging.getLogger(__name__)

_BEHIND_PACKETS: Final = 5
"""Packets that wait for a connection, as many as may leave at once; of more the oldest go."""

EncodedPacket = tuple[bytes, int, bool]
"""Payload, RTP ticks, marker."""


class OutgoingVoice(Protocol):
    """What a connection does with the voice that it sends."""

    @property
    def track(self) -> MediaStreamTrack:
        """For the peer to send."""

    @property
    def playout(self) -> PlayoutBuffer:
        """Where it waits."""

    def play(self, pcm: FloatArray, now: float) -> None:
        """Queue a frame: mono float32 at 24 kHz."""

    def clear(self) -> None:
        """Forget what has not left yet."""

    def on_loss_report(self, fraction: float) -> None:
        """The peer has lost so much (0 to 1) since its last report."""


class OwnVoice:
    """Of one connection alone."""

    def __init__(self, playout: PlayoutBuffer, track: OutboundTrack) -> None:
        self.track = track
        self.playout = playout

    def play(self, pcm: FloatArray, now: float) -> None:
        self.playout.push(pcm, now)
        self.track.start()

    def clear(self) -> None:
        self.playout.clear()

    def on_loss_report(self, fraction: float) -> None:
        if isinstance(self.track, EncodedTrack):
            self.track.on_loss_report(fraction)


class SharedVoice:
    """Of all connections that have a :meth:`share` of it. It runs from the first that sends to the last that stops.

    ``make_encoder``: called when it begins. ``bitrate``: in bit/s; ``margin_ms``: of the playout buffer.
    """

    def __init__(self, margin_ms: float, bitrate: int, make_encoder: Callable[[], OpusEncoder], wheel: Wheel) -> None:
        self._margin_ms = margin_ms
        self._bitrate = bitrate
        self._make_encoder = make_encoder
        self._wheel = wheel
        self._losses: dict[SharedTrack, float] = {}
        """What each track that sends has lost, by its peer's last report."""
        self.playout = PlayoutBuffer(margin_ms)
        self._source: EncodedTrack | None = None
        self._sending: asyncio.Task[None] | None = None

    def share(self) -> Share:
        """One more connection's part in it."""
        return Share(self)

    def play(self, pcm: FloatArray, now: float) -> None:
        """Queue a frame for all, if any of them sends: mono float32 at 24 kHz."""
        if self._source is not None:
            self.playout.push(pcm, now)
            self._source.start()

    def clear(self) -> None:
        """Forget what has not left yet."""
        self.playout.clear()

    async def close(self) -> None:
        """No more is sent. Idempotent."""
        sending = self._end()
        if sending is not None:
            await asyncio.gather(sending, return_exceptions=True)

    def join(self, track: SharedTrack) -> None:
        """Send to ``track`` as well, from the next packet on."""
        self._losses[track] = 0.0
        if self._source is None:
            self.playout = PlayoutBuffer(self._margin_ms)
            self._source = EncodedTrack(self.playout, self._make_encoder(), self._bitrate, self._wheel)
            self._sending = asyncio.create_task(self._send(self._source), name="shared-voice")

    def leave(self, track: SharedTrack) -> None:
        """Send it no more. Idempotent."""
        self._losses.pop(track, None)
        if not self._losses:
            self._end()

    def on_loss_report(self, track: SharedTrack, fraction: float) -> None:
        """The one that loses most decides how much error correction there is: its reports, at their pace."""
        if track not in self._losses or self._source is None:
            return
        self._losses[track] = fraction
        if fraction >= max(self._losses.values()):
            self._source.on_loss_report(fraction)

    async def _send(self, source: EncodedTrack) -> None:
        try:
            while True:
                packet = await source.next_packet()
                if packet is not None:
                    for track in list(self._losses):
                        track.take(packet)
        except MediaStreamError:
            pass  # stopped
        except Exception:  # the border of a task: the fault is ours, is logged, and the listeners' connections end
            logger.exception("a shared voice failed")
            for track in list(self._losses):
                track.stop()

    def _end(self) -> asyncio.Task[None] | None:
        source, self._source = self._source, None
        sending, self._sending = self._sending, None
        if source is not None:
            source.stop()
        if sending is not None and sending is not asyncio.current_task():
            sending.cancel()
        return sending


class Share:
    """One connection's part in a voice that is queued and cleared for all of them together."""

    def __init__(self, voice: SharedVoice) -> None:
        self.track = SharedTrack(voice)
        self._voice = voice

    @property
    def playout(self) -> PlayoutBuffer:
        return self._voice.playout

    def play(self, pcm: FloatArray, now: float) -> None:
        """It is queued by :meth:`SharedVoice.play`, once for all."""

    def clear(self) -> None:
        """It is cleared by :meth:`SharedVoice.clear`."""

    def on_loss_report(self, fraction: float) -> None:
        self._voice.on_loss_report(self.track, fraction)


class SharedTrack(MediaStreamTrack):
    """The packets of a shared voice, from the first time that one is asked for until it is stopped."""

    kind = "audio"

    def __init__(self, voice: SharedVoice) -> None:
        super().__init__()
        self._voice = voice
        self._joined = False
        self._packets: deque[EncodedPacket] = deque(maxlen=_BEHIND_PACKETS)
        self._news = asyncio.Event()
        self._talks = False

    def take(self, packet: EncodedPacket) -> None:
        """One more to send."""
        self._packets.append(packet)
        self._news.set()

    async def next_packet(self) -> EncodedPacket:
        """Payload, RTP ticks, marker, when they are due; the first is marked (RFC 3551, section 4.1). Raises
        MediaStreamError once the track is stopped."""
        if not self._joined and self.readyState == "live":
            self._joined = True
            self._voice.join(self)
        while not self._packets and self.readyState == "live":
            self._news.clear()
            await self._news.wait()
        if self.readyState != "live":
            raise MediaStreamError
        payload, ticks, marker = self._packets.popleft()
        marker, self._talks = marker or not self._talks, True
        return payload, ticks, marker

    async def recv(self) -> NoReturn:
        """Only a sender that takes encoded packets can send it. Raises MediaStreamError."""
        raise MediaStreamError

    def stop(self) -> None:
        super().stop()
        self._news.set()
        self._voice.leave(self)
