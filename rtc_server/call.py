"""One live session: a peer on one side, a stream of an engine on the other, and the state between them.

Owns the inbound stream, the playout buffer, the session's clock and its events. Knows nothing of HTTP
and nothing of other sessions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, assert_never

from aiortc.rtp import RtpPacket

from rtc_server.activity import VoiceActivity
from rtc_server.audio import FloatArray
from rtc_server.call_stats import CallStats
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient, EngineStream
from rtc_server.errors import BadMessage, EngineUnavailable, RateLimited, ServerError
from rtc_server.inbound import InboundStream
from rtc_server.metrics import Metrics
from rtc_server.opus import make_encoder
from rtc_server.peer import Peer, PeerStats
from rtc_server.playout import PlayoutBuffer
from rtc_server.protocols import events
from rtc_server.protocols.sdp import NarrowedOffer
from rtc_server.rate_limit import TokenBucket
from rtc_server.session import EndReason, SessionEvent, SessionId, SessionMachine, SessionState
from rtc_server.tracks import EncodedTrack, OutboundTrack, RawTrack

logger = logging.getLogger(__name__)

MESSAGES_PER_S: Final = 20
MESSAGE_BURST: Final = 50
MAX_BAD_MESSAGES: Final = 100
_LOOK_INTERVAL_S: Final = 0.5
"""How often to look whether the peer is still there: twice in the shortest peer timeout."""
_MAX_WAITING_EVENTS: Final = 64
"""Events kept for a data channel that is not open yet."""


class Call:
    """One session, from its offer to its end. ``on_ended`` is called once, when everything is released."""

    def __init__(
        self,
        session_id: SessionId,
        engine: EngineClient,
        options: events.OfferOptions,
        settings: Settings,
        metrics: Metrics,
        on_ended: Callable[[Call], None],
    ) -> None:
        now = time.monotonic()
        self.id = session_id
        self.service = engine.service
        self._machine = SessionMachine(session_id.log_id)
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._on_ended = on_ended
        self._offered_at = now
        self._connected = asyncio.Event()
        self._connected_at: float | None = None
        self._stats_interval_s = options.stats_interval_ms / 1000
        self._inbound = InboundStream(now)
        self._inbound.muted = options.muted
        self._playout = PlayoutBuffer(settings.playout_margin_ms)
        self._stats = CallStats(self._playout)
        self._published = events.Stats()
        self._activity = VoiceActivity()
        self._stream: EngineStream | None = None
        self._voice: OutboundTrack | None = None
        self._peer: Peer | None = None
        self._run_task: asyncio.Task[None] | None = None
        self._end_task: asyncio.Task[None] | None = None
        self._channel_open = False
        self._waiting: list[str] = []
        self._bucket = TokenBucket(MESSAGES_PER_S, MESSAGE_BURST, now)
        self._bad_messages = 0

    @property
    def state(self) -> SessionState:
        return self._machine.state

    @property
    def age_ms(self) -> float:
        return (time.monotonic() - self._offered_at) * 1000

    async def answer(self, offer: NarrowedOffer) -> str:
        """Take a slot and answer the offer; the rest happens by itself.

        Raises ServerFull, EngineUnavailable, BadSdp. When it raises or is cancelled, :meth:`end` releases what
        was taken.
        """
        self._stream = await self._engine.open(self)
        self._refuse_if_ending()
        self._voice = self._make_voice(offer.codec)
        self._peer = Peer(self, self._voice, self.id.log_id)
        answer = await self._peer.answer(offer)
        self._refuse_if_ending()
        self._run_task = asyncio.create_task(self._run(), name=f"call-{self.id.log_id}")
        logger.info("session %s: opened, service %s, codec %s", self.id.log_id, self.service, offer.codec)
        return answer

    def end(self, reason: EndReason, error: ServerError | None = None) -> asyncio.Task[None]:
        """End the session: the peer is told (``error`` first, then why), everything is released.

        Idempotent; the first reason counts. The task that is returned does it and never raises.
        """
        if self._end_task is None:
            self._end_task = asyncio.create_task(self._end(reason, error), name=f"end-{self.id.log_id}")
        return self._end_task

    def warn(self, error: ServerError) -> None:
        """Tell the client of trouble that the session survives."""
        self._emit(events.Error(error.code, error.message, error.retryable))

    async def stats(self) -> events.Stats:
        """The figures of now."""
        return self._stats.figures(await self._peer_stats(), self._inbound.figures())

    def on_packet(self, codec: str, packet: RtpPacket) -> None:
        if not self._machine.live:
            return
        now = time.monotonic()
        self._feed(
            self._inbound.push(codec, packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload, now)
        )

    def on_connected(self) -> None:
        if self.state is not SessionState.CONNECTING:
            return
        self._machine.apply(SessionEvent.CONNECTED)
        self._connected_at = time.monotonic()
        self._inbound.restart(self._connected_at)
        self._connected.set()

    def on_channel_open(self) -> None:
        info = self._engine.info
        if self._end_task is not None or info is None:
            return
        self._channel_open = True
        waiting, self._waiting = self._waiting, []
        self._emit(events.Connected(self.id.text, self.service, info.name, info.speaks, info.writes))
        for message in waiting:
            self._send(message)

    def on_message(self, message: str | bytes) -> None:
        now = time.monotonic()
        try:
            if not self._bucket.allow(now):
                raise RateLimited
            parsed = events.parse_client_message(message)
        except (BadMessage, RateLimited) as error:
            self._on_bad_message(error)
            return
        match parsed:
            case events.Settings():
                self._apply(parsed)
            case events.Reset():
                self._reset()
            case events.Ping():
                self._emit(events.Pong(parsed.id))
            case events.Bye():
                self.end(EndReason.BYE)
            case _:
                assert_never(parsed)

    def on_gone(self, orderly: bool) -> None:
        self.end(EndReason.BYE if orderly else EndReason.PEER_LOST)

    def on_output(self, pcm: FloatArray | None, text: str, engine_s: float | None) -> None:
        if not self._machine.live:
            return
        self._stats.frame_out(pcm, engine_s)
        if pcm is not None:
            self._playout.push(pcm, time.monotonic())
            if self._voice is not None:
                self._voice.start()
            self._follow_voice()
        if text:
            self._emit(events.Text(text))

    def on_engine_error(self, error: ServerError) -> None:
        self.end(EndReason.ENGINE_FAILED, error)

    def _refuse_if_ending(self) -> None:
        """The engine may have died, or the server begun to stop, while we waited. What was taken in the
        meantime is released by :meth:`end`, which the owner calls when :meth:`answer` raises."""
        if self._end_task is not None:
            raise EngineUnavailable

    async def _peer_stats(self) -> PeerStats:
        return PeerStats() if self._peer is None else await self._peer.stats()

    def _make_voice(self, codec: str) -> OutboundTrack:
        if codec != "OPUS":
            return RawTrack(self._playout, self._on_voice)
        bitrate = self._settings.bitrate
        return EncodedTrack(self._playout, make_encoder(bitrate), bitrate, self._on_voice)

    def _feed(self, frames: list[FloatArray]) -> None:
        for frame in frames:
            taken = self._stream is not None and self._stream.push(frame)
            self._stats.frame_in(frame, taken)

    def _on_voice(self) -> None:
        self._metrics.first_audio_seconds.labels(self.service).observe(time.monotonic() - self._offered_at)

    def _follow_voice(self) -> None:
        if self._activity.update(self._stats.level_out_dbfs):
            event = SessionEvent.VOICE_STARTED if self._activity.active else SessionEvent.VOICE_STOPPED
            self._machine.apply(event)
            self._emit_state()

    def _emit_state(self, reset: bool = False) -> None:
        state = "speaking" if self.state is SessionState.SPEAKING else "listening"
        self._emit(events.State(state, "reset" if reset else None))  # type: ignore[arg-type]

    def _apply(self, settings: events.Settings) -> None:
        if settings.muted is not None:
            self._inbound.muted = settings.muted
        if settings.stats_interval_ms is not None:
            self._stats_interval_s = settings.stats_interval_ms / 1000

    def _reset(self) -> None:
        if not self._machine.live or self._stream is None:
            return
        self._stream.reset()
        self._playout.clear()
        self._activity = VoiceActivity()
        self._machine.apply(SessionEvent.RESET)
        self._emit_state(reset=True)

    def _on_bad_message(self, error: ServerError) -> None:
        self._bad_messages += 1
        if self._bad_messages >= MAX_BAD_MESSAGES:
            self.end(EndReason.PROTOCOL_ABUSE)
        else:
            self.warn(error)

    def _emit(self, event: events.ServerEvent) -> None:
        if self.state is SessionState.ENDED:  # ``disconnected`` was the last word, whatever comes in after it
            return
        since = 0.0 if self._connected_at is None else time.monotonic() - self._connected_at
        self._send(events.encode_event(event, since * 1000))

    def _send(self, message: str) -> None:
        if self._channel_open and self._peer is not None:
            self._peer.send(message)
        elif len(self._waiting) < _MAX_WAITING_EVENTS:
            self._waiting.append(message)

    async def _run(self) -> None:
        try:
            if await self._wait_connected():
                await self._keep_time()
        except Exception:  # the border of a task: a fault here costs this session and no other
            logger.exception("session %s failed", self.id.log_id)
            self.end(EndReason.INTERNAL)

    async def _wait_connected(self) -> bool:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await self._connected.wait()
        except TimeoutError:
            self.end(EndReason.CONNECT_TIMEOUT)
            return False
        return True

    async def _keep_time(self) -> None:
        """What must happen although nothing comes: the microphone's gaps are filled, figures go out, and a peer
        that has gone without a word is noticed."""
        assert self._peer is not None, "a call runs once its offer is answered"
        heard_at = looked_at = stats_at = time.monotonic()
        packets = 0
        while True:
            due = min(self._inbound.deadline, looked_at + _LOOK_INTERVAL_S, stats_at + self._stats_interval_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            self._feed(self._inbound.poll(now))
            if now < min(looked_at + _LOOK_INTERVAL_S, stats_at + self._stats_interval_s):
                continue
            peer_stats = await self._peer.stats()
            if now >= looked_at + _LOOK_INTERVAL_S:
                looked_at = now
                if peer_stats.transport_packets != packets:
                    packets, heard_at = peer_stats.transport_packets, now
                elif now - heard_at > self._settings.peer_timeout_s:
                    self.end(EndReason.PEER_LOST)
                    return
            if now >= stats_at + self._stats_interval_s:
                stats_at = now
                self._report(peer_stats)

    def _report(self, peer_stats: PeerStats) -> None:
        """A period ends: its figures go out, and the encoder follows what the peer has lost."""
        if isinstance(self._voice, EncodedTrack) and peer_stats.fraction_lost_out is not None:
            self._voice.on_loss_report(peer_stats.fraction_lost_out)
        figures = self._stats.next_period(peer_stats, self._inbound.figures())
        self._publish(figures)
        self._emit(figures)

    async def _end(self, reason: EndReason, error: ServerError | None) -> None:
        try:
            await self._release(reason, error)
        except Exception:  # the border of a task: whatever fails, the session must leave the registry
            logger.exception("session %s: not everything could be released", self.id.log_id)
        finally:
            self._metrics.sessions_ended.labels(reason).inc()
            self._on_ended(self)

    async def _release(self, reason: EndReason, error: ServerError | None) -> None:
        if error is not None:
            self.warn(error)
        self._emit(events.Disconnected(reason))
        self._machine.apply(SessionEvent.END)
        if self._stream is not None:
            self._stream.close()
        if self._run_task is not None:
            self._run_task.cancel()
            await asyncio.gather(self._run_task, return_exceptions=True)
        if self._peer is not None:
            try:
                final = await self.stats()
                self._publish(final)
                self._log_end(reason, final)
            finally:
                await self._peer.close()

    def _publish(self, figures: events.Stats) -> None:
        """Move the metrics by what has happened since they were last moved."""
        before, self._published = self._published, figures
        self._metrics.frames_filled.inc(figures.frames_filled - before.frames_filled)
        self._metrics.frames_dropped.labels("late").inc(figures.frames_dropped - before.frames_dropped)
        self._metrics.underruns.inc(figures.underruns - before.underruns)
        if self._inbound.running:
            self._metrics.concealed_share.observe(figures.concealed_in)
            self._metrics.loss_share.labels("in").observe(figures.loss_in)
            self._metrics.loss_share.labels("out").observe(figures.loss_out)
            self._metrics.jitter_buffer_seconds.observe(figures.jitter_buffer_ms / 1000)
        if self.state is SessionState.SPEAKING:
            self._metrics.playout_seconds.observe(figures.playout_ms / 1000)

    def _log_end(self, reason: EndReason, final: events.Stats) -> None:
        logger.info(
            "session %s: ended, %s, %.1f s, frames %d in %d out %d filled %d dropped, packets %d lost %d, underruns %d",
            self.id.log_id,
            reason,
            self.age_ms / 1000,
            final.frames_in,
            final.frames_out,
            final.frames_filled,
            final.frames_dropped,
            final.packets_received,
            final.packets_lost,
            final.underruns,
        )
