"""One live session: a connection on one side, a stream of an engine on the other, and the state between them.

Owns the inbound stream, the playout buffer, the session's clock and its events. A connection that dies is waited for
and replaced; the stream stays. Knows nothing of HTTP and nothing of other sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from aiortc.rtp import RtpPacket

from rtc_server import audio
from rtc_server.access.auth import Visitor
from rtc_server.access.rate_limit import TokenBucket
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient, EngineStream, StreamOutput
from rtc_server.engine.model import ServiceKind
from rtc_server.errors import (
    BadMessage,
    EngineUnavailable,
    RateLimited,
    ResumeRefused,
    ServerError,
    UnknownSession,
)
from rtc_server.media.inbound import InboundStream
from rtc_server.media.microphone import START_PATIENCE_S
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.media.voice_gate import VoiceActivity
from rtc_server.metrics import Metrics
from rtc_server.protocols import events
from rtc_server.protocols.offer import Offer
from rtc_server.sessions.listeners import Audience
from rtc_server.sessions.outbox import Outbox
from rtc_server.sessions.resume import ResumeTokens
from rtc_server.sessions.state import EndReason, SessionEvent, SessionId, SessionMachine, SessionState
from rtc_server.sessions.stats import CallStats
from rtc_server.transcription.live import Hearing
from rtc_server.webrtc.connection import Connection
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.peer import PeerStats

logger = logging.getLogger(__name__)

MESSAGES_PER_S: Final = 20
MESSAGE_BURST: Final = 50
MAX_BAD_MESSAGES: Final = 100
_FLUSH_WORDS_S: Final = 3.0
_LOOK_INTERVAL_S: Final = 0.5
"""How often to look whether the peer is still there: twice in the shortest peer timeout."""
_WARNING_S: Final = 60.0
"""How long before its end by the clock a session is told."""


@dataclass(frozen=True, slots=True)
class Answered:
    """``token``: resumes the session, once; None for a session that cannot be resumed."""

    sdp: str
    etag: str
    token: str | None


class Call:
    """One session, from its offer to its end. ``on_ended`` is called once, when everything is released.

    ``resumable``: waits for its client when the media path dies. ``limit_s``: how long it may last.
    """

    def __init__(
        self,
        session_id: SessionId,
        engine: EngineClient,
        options: events.OfferOptions,
        settings: Settings,
        metrics: Metrics,
        addresses: MediaAddresses,
        visitor: Visitor,
        resumable: bool,
        detector: EngineClient | None,
        on_ended: Callable[[Call], None],
    ) -> None:
        now = time.monotonic()
        self.id = session_id
        self.service = engine.service
        self.visitor = visitor
        self.audience = Audience(settings, addresses, session_id.log_id)
        self._machine = SessionMachine(session_id.log_id)
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._addresses = addresses
        self._resumable = resumable and settings.resume_grace > 0
        self._on_ended = on_ended
        self._offered_at = now
        self._connected = asyncio.Event()
        self._deadline = now + settings.connect_timeout_s
        """When a client that is not connected must be."""
        self._stats_interval_s = options.stats_interval_ms / 1000
        self._inbound = InboundStream(now)
        self._inbound.muted = options.muted
        self._playout = PlayoutBuffer(settings.playout_margin_ms)
        self._stats = CallStats(self._playout)
        self._published = events.Stats()
        self._activity = VoiceActivity()
        self._stream: EngineStream | None = None
        self._detector = detector
        self._hearing: Hearing | None = None
        self._interrupted_at: float | None = None
        self._flushing = False
        self._connection: Connection | None = None
        self._peer_before = PeerStats()
        self._tokens = ResumeTokens()
        self._resuming: asyncio.Task[Answered] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self.outbox = Outbox()
        self._run_task: asyncio.Task[None] | None = None
        self._end_task: asyncio.Task[None] | None = None
        self.end_reason: EndReason | None = None
        self.end_detail = ""
        """A sentence for the client on why it ended; empty if the reason says it all."""
        self._timers: list[asyncio.TimerHandle] = []
        self._bucket = TokenBucket(MESSAGES_PER_S, MESSAGE_BURST, now)
        self._bad_messages = 0

    @property
    def state(self) -> SessionState:
        return self._machine.state

    @property
    def connecting(self) -> bool:
        """Whether its client has been answered, and was never there."""
        return self.state is SessionState.CONNECTING

    @property
    def age_ms(self) -> float:
        return (time.monotonic() - self._offered_at) * 1000

    @property
    def connection(self) -> Connection:
        """The one that speaks. Raises UnknownSession if there is none at the moment."""
        if self._connection is None:
            raise UnknownSession
        return self._connection

    def waits_s(self) -> float:
        """How long it will still wait for its client."""
        return max(0.0, self._deadline - time.monotonic())

    async def answer(self, offer: Offer) -> Answered:
        """Take a slot and answer the offer; the rest happens by itself.

        Raises ServerFull, EngineUnavailable, BadSdp, NoPort. When it raises or is cancelled, :meth:`end` releases
        what was taken.
        """
        self._stream = await self._engine.open(self)
        await self._open_hearing(self._stream)
        self._refuse_if_ending()
        self._connection = self.outbox.channel = self._make_connection(offer)
        answer = await self._connection.answer()
        self._refuse_if_ending()
        self._limit()
        self._run_task = asyncio.create_task(self._run(), name=f"call-{self.id.log_id}")
        logger.info("session %s: opened, service %s, codec %s", self.id.log_id, self.service, offer.codec)
        return self._answered(answer, self._connection)

    async def resume(self, sdp: str, offer: Offer, token: str, last_seq: int | None) -> Answered:
        """Put a new connection in the place of the one there is. Raises ResumeRefused, BadSdp, NoPort.

        When cancelled it goes on: the client that asks again, its answer lost, gets the answer.
        """
        if not self._resumable or self._end_task is not None:
            raise ResumeRefused
        if self._tokens.redeem(token, sdp):
            self._resuming = asyncio.create_task(self._reconnect(offer, last_seq), name=f"resume-{self.id.log_id}")
        assert self._resuming is not None, "an offer that was redeemed before was being answered"
        return await asyncio.shield(self._resuming)

    def forbid_resume(self) -> None:
        """The server goes: nobody is waited for any more."""
        self._resumable = False
        if self.state is SessionState.WAITING:
            self.end(EndReason.SERVER_SHUTDOWN)

    def end(self, reason: EndReason, error: ServerError | None = None) -> asyncio.Task[None]:
        """End the session: the peer is told (``error`` first, then why), everything is released.

        Idempotent; the first reason counts. The task that is returned does it and never raises.
        """
        if self._end_task is None:
            self.end_reason = reason
            self._end_task = asyncio.create_task(self._end(reason, error), name=f"end-{self.id.log_id}")
        return self._end_task

    def warn(self, error: ServerError) -> None:
        """Tell the client of trouble that the session survives."""
        self.outbox.emit(events.Error(error.code, error.message, error.retryable))

    def recovered(self, error: ServerError) -> None:
        """Tell the client that the trouble it was warned of is over."""
        self.outbox.emit(events.Recovered(error.code))

    async def stats(self) -> events.Stats:
        """The figures of now."""
        return self._stats.figures(await self._peer_stats(), self._inbound.figures())

    def on_packet(self, connection: Connection, codec: str, packet: RtpPacket) -> None:
        if not self._machine.live or connection is not self._connection:
            return
        now = time.monotonic()
        self._feed(
            self._inbound.push(codec, packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload, now)
        )

    def on_connected(self, connection: Connection) -> None:
        if connection is self._connection and self.state in (SessionState.CONNECTING, SessionState.WAITING):
            self._go_on()

    def on_channel_open(self, connection: Connection) -> None:
        info = self._engine.info
        if self._end_task is not None or info is None or connection is not self._connection:
            return
        resumed = self._resuming is not None
        connected = events.Connected(self.id.text, self.service, info.name, info.speaks, info.writes, resumed)
        self.outbox.greet(connected)

    def on_channel_closed(self, connection: Connection) -> None:
        if connection is self._connection and self._machine.live:
            self.outbox.channel_closed()

    def on_message(self, connection: Connection, message: str | bytes) -> None:
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
                self.outbox.emit(events.Pong(parsed.id))
            case events.Bye():
                self.end(EndReason.BYE)
            case _:
                assert_never(parsed)

    def on_gone(self, connection: Connection, orderly: bool) -> None:
        if connection is not self._connection:
            return
        if orderly:
            self.end(EndReason.BYE)
        elif self.state is SessionState.WAITING:
            self._drop_connection()
        elif self.state is SessionState.CONNECTING and (failure := connection.handshake_failure) is not None:
            self.end_detail = f"The DTLS handshake failed: {failure.cause}."
            self.end(EndReason.HANDSHAKE_FAILED)
        else:
            self._lose_path()

    def on_output(self, output: StreamOutput) -> None:
        if self.state is SessionState.CONNECTING:
            return
        # Words that were under way when the path died are kept for the client; its voice would be stale.
        if self._hearing is not None and self._hearing.transcribes:
            self._hearing.on_model_output(output)
        elif output.text:
            self.outbox.emit(events.Text(output.text))
        if not self._machine.live:
            return
        self._stats.frame_out(output.pcm, output.engine_s)
        if output.pcm is not None:
            now = time.monotonic()
            if self._connection is not None:
                self._connection.play(output.pcm, now)
            self.audience.play(output.pcm, now)
            self._follow_voice()

    def on_engine_error(self, error: ServerError) -> None:
        self.end(EndReason.ENGINE_FAILED, error)

    async def _open_hearing(self, stream: EngineStream) -> None:
        info = self._engine.info
        if info is None or (info.kind is ServiceKind.ECHO and self._settings.vad != "on"):
            return
        self._hearing = Hearing(info, self._settings, self.outbox.emit, self._on_speech)
        await self._hearing.open(self._detector)
        for _ in range(self._hearing.prefix_frames):
            await stream.feed(audio.silence(audio.FRAME_SAMPLES))

    def _on_speech(self, at_ms: int) -> None:
        """Somebody begins to speak: an interruption, if the model is speaking. An echo is not interrupted by those
        who make it."""
        info = self._engine.info
        if self.state is SessionState.SPEAKING and info is not None and info.kind is not ServiceKind.ECHO:
            self._interrupted_at = time.monotonic()
            self._metrics.interruptions.labels(self.service).inc()
            self.outbox.emit(events.Interrupted(at_ms))

    def on_first_voice(self, connection: Connection) -> None:
        self._metrics.first_audio_seconds.labels(self.service).observe(time.monotonic() - self._offered_at)

    def _refuse_if_ending(self) -> None:
        """The engine may have died, or the server begun to stop, while we waited. What was taken in the
        meantime is released by :meth:`end`, which the owner calls when :meth:`answer` raises."""
        if self._end_task is not None:
            raise EngineUnavailable

    def _make_connection(self, offer: Offer) -> Connection:
        return Connection(self, offer, self._playout, self._settings, self._addresses, self.id.log_id)

    def _answered(self, sdp: str, connection: Connection) -> Answered:
        return Answered(sdp, connection.etag, self._tokens.issue() if self._resumable else None)

    async def _reconnect(self, offer: Offer, last_seq: int | None) -> Answered:
        connection = self._make_connection(offer)
        try:
            answer = await connection.answer()
            before = await self._peer_stats()
            self._refuse_if_ending()
        except BaseException:  # cancelled included
            self._tokens.restore()
            self._retire(connection)
            raise
        if self._machine.live:
            self._lose_path()
        self._peer_before = before
        self._drop_connection()
        self._connection = self.outbox.channel = connection
        self._deadline = max(self._deadline, time.monotonic() + self._settings.connect_timeout_s)
        if last_seq is not None:
            self.outbox.seen = last_seq
        if connection.connected:  # faster than we have got here
            self._go_on()
        return self._answered(answer, connection)

    def _go_on(self) -> None:
        """The client is there, for the first time or again."""
        now = time.monotonic()
        back = self.state is SessionState.WAITING
        self._machine.apply(SessionEvent.CONNECTED)
        self.outbox.begin(now)
        # The model begins when its user can be heard. That is also when a browser begins to play: what came before
        # would wait in its jitter buffer, and be late for half a minute.
        self._inbound.restart(now, START_PATIENCE_S if self.connection.sends else 0.0)
        self._tokens.settle()
        self._connected.set()
        if back:
            self._metrics.sessions_resumed.labels(self.service).inc()
            logger.info("session %s: goes on", self.id.log_id)

    def _lose_path(self) -> None:
        """The client cannot be reached: wait for it, or give it up."""
        if not self._resumable or not self._machine.live:
            self.end(EndReason.PEER_LOST)
            return
        self._machine.apply(SessionEvent.PATH_LOST)
        self._connected.clear()
        self._deadline = time.monotonic() + self._settings.resume_grace
        self.outbox.seen = self.outbox.last
        self._playout.clear()
        self._activity = VoiceActivity()
        logger.info("session %s: path lost, waits %.0f s", self.id.log_id, self._settings.resume_grace)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._retire(self._connection)
            self._connection = self.outbox.channel = None

    def _retire(self, connection: Connection) -> None:
        """Close a connection that is of no use any more, beside whatever goes on."""
        connection.retire()
        task = asyncio.create_task(connection.close(flush=False), name=f"retire-{self.id.log_id}")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _peer_stats(self) -> PeerStats:
        now = PeerStats() if self._connection is None else await self._connection.look()
        return now.after(self._peer_before)

    def _limit(self) -> None:
        """Whoever may come in may also be told how long to stay."""
        limit_s = self.visitor.principal.session_s(self._settings.max_session)
        loop = asyncio.get_running_loop()
        left_s = min(limit_s, _WARNING_S)
        warning = events.Ending("time_limit", round(left_s * 1000))
        self._timers = [
            loop.call_later(limit_s - left_s, self.outbox.emit, warning),
            loop.call_later(limit_s, self.end, EndReason.TIME_LIMIT),
        ]

    def _feed(self, frames: list[FloatArray]) -> None:
        for frame in frames:
            taken = self._stream is not None and not self._flushing and self._stream.push(frame)
            self._stats.frame_in(frame, taken)
            if self._hearing is not None:
                self._hearing.on_frame(frame)

    def _follow_voice(self) -> None:
        if self._activity.update(self._stats.level_out_dbfs):
            event = SessionEvent.VOICE_STARTED if self._activity.active else SessionEvent.VOICE_STOPPED
            if event is SessionEvent.VOICE_STOPPED and self._interrupted_at is not None:
                quiet_s = time.monotonic() - self._interrupted_at
                self._metrics.interruption_seconds.labels(self.service).observe(quiet_s)
                self._interrupted_at = None
            self._machine.apply(event)
            self._emit_state()

    def _emit_state(self, reset: bool = False) -> None:
        state = "speaking" if self.state is SessionState.SPEAKING else "listening"
        self.outbox.emit(events.State(state, "reset" if reset else None))  # type: ignore[arg-type]

    def _apply(self, settings: events.Settings) -> None:
        if settings.muted is not None:
            self._inbound.muted = settings.muted
        if settings.stats_interval_ms is not None:
            self._stats_interval_s = settings.stats_interval_ms / 1000

    def _reset(self) -> None:
        if not self._machine.live or self._stream is None:
            return
        self._stream.reset()
        if self._hearing is not None:
            self._hearing.reset()
        self._playout.clear()
        self.audience.clear()
        self._activity = VoiceActivity()
        self._machine.apply(SessionEvent.RESET)
        self._emit_state(reset=True)

    def _on_bad_message(self, error: ServerError) -> None:
        self._bad_messages += 1
        if self._bad_messages >= MAX_BAD_MESSAGES:
            self.end(EndReason.PROTOCOL_ABUSE)
        else:
            self.warn(error)

    async def _run(self) -> None:
        try:
            if not await self._wait_for_client():
                self._give_up_connecting()
                return
            while self._end_task is None:
                await self._keep_time()
                if not await self._wait_for_client():
                    self.end(EndReason.PEER_LOST)
        except Exception:  # the border of a task: a fault here costs this session and no other
            logger.exception("session %s failed", self.id.log_id)
            self.end(EndReason.INTERNAL)

    def _give_up_connecting(self) -> None:
        if self._connection is None or not self._connection.handshake_unfinished:
            self.end(EndReason.CONNECT_TIMEOUT)
            logger.warning("session %s: nobody connected. %s", self.id.log_id, self._addresses.advice())
            return
        self.end_detail = "A path was found, but the client's side of the DTLS handshake did not come: see a=setup."
        self.end(EndReason.HANDSHAKE_FAILED)
        logger.warning("session %s: the DTLS handshake failed: the client's side did not come", self.id.log_id)

    async def _wait_for_client(self) -> bool:
        """Until the client is connected; False when it is too late. A path that was dead may come back by itself."""
        while not self._connected.is_set():
            wait_s = min(_LOOK_INTERVAL_S, self.waits_s())
            if wait_s <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._connected.wait(), wait_s)
            await self.audience.look()
            await self._look_for_path()
        return True

    async def _look_for_path(self) -> None:
        connection = self._connection
        if self.state is not SessionState.WAITING or connection is None or not connection.connected:
            return
        await connection.look()
        alive = connection.silent_s(time.monotonic()) < _LOOK_INTERVAL_S
        if alive and connection is self._connection and self.state is SessionState.WAITING:
            self._go_on()

    async def _keep_time(self) -> None:
        """What must happen although nothing comes, until the path is lost: the microphone's gaps are filled, figures
        go out, and a peer that has gone without a word is noticed."""
        looked_at = stats_at = time.monotonic()
        while self._machine.live:
            due = min(self._inbound.deadline, looked_at + _LOOK_INTERVAL_S, stats_at + self._stats_interval_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not self._machine.live:
                return
            now = time.monotonic()
            self._feed(self._inbound.poll(now))
            if now < min(looked_at + _LOOK_INTERVAL_S, stats_at + self._stats_interval_s):
                continue
            peer_stats = await self._peer_stats()
            if not self._machine.live or self._connection is None:
                return
            if now >= looked_at + _LOOK_INTERVAL_S:
                looked_at = now
                await self.audience.look()
                if self._connection.silent_s(now) > self._settings.peer_timeout_s:
                    self._lose_path()
                    return
            if now >= stats_at + self._stats_interval_s:
                stats_at = now
                self._report(peer_stats)

    def _report(self, peer_stats: PeerStats) -> None:
        """A period ends: its figures go out, and the encoder follows what the peer has lost."""
        if self._connection is not None and peer_stats.fraction_lost_out is not None:
            self._connection.on_loss_report(peer_stats.fraction_lost_out)
        figures = self._stats.next_period(peer_stats, self._inbound.figures())
        self._publish(figures)
        self.outbox.emit(figures)

    async def _end(self, reason: EndReason, error: ServerError | None) -> None:
        try:
            await self._release(reason, error)
        except Exception:  # the border of a task: whatever fails, the session must leave the registry
            logger.exception("session %s: not everything could be released", self.id.log_id)
        finally:
            self._metrics.sessions_ended.labels(reason).inc()
            self._on_ended(self)

    async def _release(self, reason: EndReason, error: ServerError | None) -> None:
        await self._flush_words()
        if error is not None:
            self.warn(error)
        self.outbox.emit(events.Disconnected(reason))
        self.outbox.close()
        self._machine.apply(SessionEvent.END)
        for timer in self._timers:
            timer.cancel()
        if self._stream is not None:
            self._stream.close()
        if self._hearing is not None:
            await self._hearing.close()
        for task in (self._run_task, self._resuming):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        try:
            if self._run_task is not None:
                final = await self.stats()
                self._publish(final)
                self._log_end(reason, final)
        finally:
            await self.audience.close()
            if self._connection is not None:
                await self._connection.close()
            await asyncio.gather(*self._retired)

    async def _flush_words(self) -> None:
        """Silence, as fast as the engine takes it, brings out the last words of one who has stopped talking."""
        stream, hearing = self._stream, self._hearing
        if stream is None or hearing is None or not hearing.transcribes or not self.outbox.began:
            return
        self._flushing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_WORDS_S):
                for _ in range(hearing.flush_frames):
                    await stream.feed(audio.silence(audio.FRAME_SAMPLES))
                await stream.drained()
        hearing.finish()

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
