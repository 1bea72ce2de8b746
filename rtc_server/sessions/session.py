"""One live session: connects a transport to a stream of an engine, and keeps the state between them.

Owns the session's limits and its events. Its slot, also when the engine dies, is :mod:`rtc_server.sessions.slot`'s;
what becomes of its user's audio, :mod:`rtc_server.sessions.user_audio`'s; whether its client is there, and by which
transport, :mod:`rtc_server.sessions.presence`'s, and the slot stays while it is not. Knows nothing of how audio
travels, of HTTP, and of other sessions.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from typing import Final, Literal, assert_never

from rtc_server import audio
from rtc_server.access.principals import Visitor
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.engine.engine import Engine
from rtc_server.engine.model import ServiceKind
from rtc_server.engine.stream import EngineStream, StreamOutput
from rtc_server.errors import (
    BadMessage,
    Draining,
    EngineFailed,
    EngineUnavailable,
    RateLimited,
    ResumedElsewhere,
    ResumeRefused,
    ServerError,
    UnknownSession,
)
from rtc_server.media.microphone import START_PATIENCE_S
from rtc_server.metrics import Metrics
from rtc_server.protocols import events
from rtc_server.protocols.rooms import RoomCommand, RoomEvent, RoomSettings, Say
from rtc_server.sessions import memo
from rtc_server.sessions.captioner import Captioners
from rtc_server.sessions.listeners import Listeners
from rtc_server.sessions.memo import Memo
from rtc_server.sessions.outbox import Outbox
from rtc_server.sessions.presence import LOOK_INTERVAL_S, Connect, Presence, Resumed
from rtc_server.sessions.report import SessionReport
from rtc_server.sessions.slot import Slot
from rtc_server.sessions.starting import StartingNotice
from rtc_server.sessions.state import EndReason, SessionEvent, SessionId, SessionMachine, SessionState
from rtc_server.sessions.stats import SessionStats
from rtc_server.sessions.transport import Transport, TransportFigures, Unreached
from rtc_server.sessions.user_audio import UserAudio
from rtc_server.sessions.voice import ModelVoice
from rtc_server.system.rate_limit import TokenBucket
from rtc_server.system.wheel import EARLY_S, Wheel

logger = logging.getLogger(__name__)

MESSAGES_PER_S: Final = 20
MESSAGE_BURST: Final = 50
MAX_BAD_MESSAGES: Final = 100
_FORGOTTEN: Final = "The model failed, and has forgotten what was said. The conversation goes on when another is there."
_NOT_IN_TIME: Final = "The model that this conversation waited for did not come. Try again in a few seconds."
_MOVE_WITHIN_S: Final = 2.0
"""In which the sessions of a server that stops are told to go on elsewhere: each is a handshake there."""
_WARNING_S: Final = 60.0
"""How long before its end by the clock a session is told."""


class Session:
    """One session, from its slot to its end. ``on_ended`` is called once, when everything is released.

    Opened in three steps: :meth:`open` takes the slot, :meth:`attach` gives it a transport, :meth:`start` lets it go
    on by itself. One that was another media node's is opened by :meth:`take_over` alone. ``resumable``: waits for its
    client when the transport dies. ``wheel``: wakes it, and says the time.
    """

    def __init__(
        self,
        session_id: SessionId,
        engine: Engine,
        options: events.OfferOptions,
        settings: Settings,
        metrics: Metrics,
        visitor: Visitor,
        resumable: bool,
        detector: Engine | None,
        captioners: Captioners,
        on_ended: Callable[[Session], None],
        wheel: Wheel,
    ) -> None:
        clock = wheel.now
        now = clock()
        self.id = session_id
        self.service = engine.service
        self.visitor = visitor
        self.member_token = options.member or ""
        """Of a room."""
        self.listeners = Listeners(settings, session_id.log_id, clock)
        self._clock = clock
        self._wheel = wheel
        self._machine = SessionMachine(session_id.log_id)
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._on_ended = on_ended
        self._opened_at = now
        self.presence = Presence(self._machine, self, settings, resumable, session_id.log_id, clock)
        self._stats_interval_ms = options.stats_interval_ms
        self.outbox = Outbox(clock)
        self._stats = SessionStats()
        self.user_audio = UserAudio(self._stats, self._on_heard, self._on_speech, now)
        self.user_audio.microphone.muted = options.muted
        self._told = SessionReport(metrics, session_id.log_id)
        self._endpoint = ""
        self._voice = ModelVoice()
        self._slot = Slot(engine, self, session_id.log_id, clock)
        self._memo = Memo(options.muted, options.stats_interval_ms, options.captions, 0, 0.0, None)
        """As it was left with the engine."""
        self.awaits_slot = False
        """Whether there has been no slot for it yet."""
        self._starting = StartingNotice(engine, clock)
        self._slot_digest = b""
        """Of the key by which another media node may take the session over; empty: none may."""
        self._moves = False
        """Whether the server stops, and another one has to go on with the session."""
        self._detector = detector
        self._captioners = captioners
        self._captions_wanted = options.captions
        self._finished = False
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
        return (self._clock() - self._opened_at) * 1000

    @property
    def transport(self) -> Transport:
        """The one that speaks and listens. Raises UnknownSession if there is none at the moment."""
        if self.presence.transport is None:
            raise UnknownSession
        return self.presence.transport

    def frees_s(self) -> float | None:
        """When its place is given away, if its client does not come back. None: its client is there."""
        return self.presence.waits_s() if self.state is SessionState.WAITING else None

    async def open(self, waits: bool = False) -> None:
        """Take a slot of the engine. ``waits``: if there is none, :meth:`wait_for_slot` may follow.

        Raises ServerFull, EngineUnavailable. When it raises or is cancelled, :meth:`end` releases what was taken.
        """
        await self._begin_hearing(await self._slot.open(waits))
        self.refuse_if_ending()

    def wait_for_slot(self) -> None:
        """There is no slot yet: once the session is started, it takes one as soon as it can."""
        self.awaits_slot = True

    async def take_over(self, session_id: str, token: str) -> None:
        """Take the slot of a session that was another media node's by that id, and wait for its client, which has
        ``token`` and will :meth:`resume` with it.

        Raises ResumeRefused where there is none, EngineUnavailable. When it raises or is cancelled, :meth:`end`
        releases what was taken.
        """
        key = memo.slot_key(token, session_id, self.visitor.principal.name)
        stream = await self._slot.adopt(key)
        known, now = memo.read(stream.opened.memo), self._clock()
        written_at = now - stream.opened.memo_age_s
        self._opened_at = written_at - known.age_s
        self._apply(events.Settings(known.muted, known.stats_interval_ms, known.captions))
        self._captions_wanted = known.captions
        self.outbox.go_on(known.last_seq, None if known.time_s is None else written_at - known.time_s)
        info, before = self._engine.info, known.frames_before
        await self.user_audio.open(stream, info, self._settings, self._detector, before)
        self.refuse_if_ending()
        self.presence.expect(token)
        self._lock(key)  # the same key opens once more, until its client has another: this node may die as well
        self._open_captions()
        self._begin("taken over")

    def attach(self, transport: Transport) -> None:
        """Give the session the transport by which its client is reached. The session owns it from now on."""
        self.presence.attach(transport)

    def start(self) -> str | None:
        """The client has its answer: from now on the session goes on by itself. Returns the token that resumes it,
        once; None for one that cannot be resumed. Raises EngineUnavailable if it is ending already."""
        self.refuse_if_ending()
        self._begin(f"opened, {self.transport.name}")
        if self.awaits_slot:
            self._slot.wait(self._settings.wait_s)
        return self.presence.next_token()

    async def resume(self, token: str, request: str, last_seq: int | None, connect: Connect) -> Resumed:
        """See :meth:`Presence.resume`. Raises ResumeRefused, and what ``connect`` raises."""
        if self._end_task is not None:
            raise ResumeRefused
        return await self.presence.resume(token, request, last_seq, connect)

    def on_drain(self) -> None:
        """The server stops before long. Where another one can go on with the session, the client is told to come back
        there; else, that it ends. One that is not there is waited for no longer: not here."""
        if self._can_move():
            self._move_on()
        else:
            self.warn(Draining())
            self.presence.refuse_resumes()
        if self.state is SessionState.WAITING:
            self.shut_down()

    def _can_move(self) -> bool:
        return self._engine.shared and bool(self._slot_digest) and self._slot.stream is not None

    def _move_on(self) -> None:
        self._moves = True
        stops_s = self._settings.drain_s
        wait_s = random.uniform(0.0, min(_MOVE_WITHIN_S, stops_s / 2))  # noqa: S311 - no secret
        event = events.Moving(round((stops_s - wait_s) * 1000))
        self._timers.append(asyncio.get_running_loop().call_later(wait_s, self.outbox.emit, event))

    def shut_down(self) -> None:
        """End the session with the server."""
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
        return self._figures(await self.presence.look())

    def _figures(self, figures: TransportFigures) -> events.Stats:
        microphone = self.user_audio.microphone
        return self._stats.figures(figures, microphone.filled, microphone.dropped)

    def on_audio(self, transport: Transport, pcm: FloatArray, now: float) -> None:
        if self._machine.live and transport is self.presence.transport:
            self._play_nothing(self.user_audio.push(pcm, now), now)

    def on_connected(self, transport: Transport) -> None:
        self.presence.connected(transport)

    def on_channel_open(self, transport: Transport) -> None:
        info = self._engine.info
        if self._end_task is not None or transport is not self.presence.transport:
            return
        if self.awaits_slot:
            self.outbox.greet(self._starting.tell())
        elif info is not None:
            self.outbox.greet(
                events.Connected(self.id.text, self.service, info.name, info.speaks, info.writes, self.presence.resumed)
            )

    def on_channel_closed(self, transport: Transport) -> None:
        if transport is self.presence.transport and self._machine.live:
            self.outbox.channel_closed()

    def on_message(self, transport: Transport, message: str | bytes) -> None:
        now = self._clock()
        try:
            if not self._bucket.allow(now):
                raise RateLimited
            parsed = events.parse_client_message(message)
        except (BadMessage, RateLimited) as error:
            self.on_refused(transport)
            if self._end_task is None:
                self.warn(error)
            return
        self.on_command(transport, parsed)

    def on_command(self, transport: Transport, command: events.ClientMessage) -> None:
        match command:
            case events.Settings():
                self._apply(command)
            case events.Reset():
                self._reset()
            case events.Ping():
                self.outbox.emit(events.Pong(command.id))
            case events.Bye():
                self.end(EndReason.BYE)
            case Say() | RoomSettings():
                self._pass_on(command)
            case _:
                assert_never(command)

    def on_room_event(self, event: RoomEvent) -> None:
        """The room in which its client is a member tells something."""
        self.outbox.emit(event)

    def on_unseated(self, moved: bool = False) -> None:
        """Its client is a member no more, or sits elsewhere; or the room has ``moved`` to another process."""
        self.end(EndReason.SERVER_SHUTDOWN if moved else EndReason.LEFT)

    def on_refused(self, transport: Transport) -> None:
        self._bad_messages += 1
        if self._bad_messages >= MAX_BAD_MESSAGES:
            self.end(EndReason.PROTOCOL_ABUSE)

    def on_finished(self, transport: Transport) -> None:
        self._finished = True
        self.end(EndReason.BYE)

    def on_gone(self, transport: Transport, orderly: bool) -> None:
        self.presence.gone(transport, orderly)

    def on_first_voice(self, transport: Transport) -> None:
        self._metrics.first_audio_seconds.labels(self.service).observe(self._clock() - self._opened_at)

    def on_output(self, output: StreamOutput) -> None:
        if self.state is SessionState.CONNECTING:
            return
        # Words that were under way when the path died are kept for the client; its voice would be stale.
        if self.user_audio.transcribes:
            self.user_audio.on_model_output(output)
        elif output.text:
            self.outbox.emit(events.Text(output.text, self.user_audio.at_ms(output)))
        if not self._machine.live:
            return
        self._stats.frame_out(output.pcm, output.engine_s)
        if output.pcm is not None:
            now = self._clock()
            self._play(output.pcm, now)
            self._follow_voice(now)

    def on_engine_error(self, error: ServerError) -> None:
        if self._moves and isinstance(error, ResumedElsewhere):
            self.end(EndReason.MOVED)
            return
        patience_s, begun = self._settings.resume_grace_s, self._run_task is not None and not self.awaits_slot
        if not self._slot.replaceable(error) or not begun or patience_s <= 0:
            self.end(EndReason.ENGINE_FAILED, error)
        elif self._end_task is None:
            self.warn(EngineFailed(_FORGOTTEN))
            self.user_audio.lose_model()
            self._be_quiet()
            self._slot.wait(patience_s)

    async def on_slot(self, stream: EngineStream) -> None:
        if self.awaits_slot:
            await self._begin_hearing(stream)
            self.awaits_slot = False
            self._leave_memo()
            if self.presence.transport is not None and self.presence.transport.channel_open:
                self.outbox.seen = self.outbox.last  # while it waited
                self.on_channel_open(self.presence.transport)
            return
        self.user_audio.renew_model(stream)
        self._leave_memo()
        self.recovered(EngineFailed())
        self._emit_state("restarted")
        self._metrics.sessions_restarted.labels(self.service).inc()

    def on_no_slot(self) -> None:
        if self.awaits_slot:
            self.end(EndReason.ENGINE_UNAVAILABLE, EngineUnavailable(_NOT_IN_TIME))
        else:
            self.end(EndReason.ENGINE_FAILED)

    def refuse_if_ending(self) -> None:
        """The engine may have died, or the server begun to stop, while the session waited."""
        if self._end_task is not None:
            raise EngineUnavailable

    def on_transport(self, transport: Transport | None) -> None:
        self.outbox.channel = transport
        if transport is not None:
            self._endpoint = transport.endpoint

    def on_here(self, transport: Transport, back: bool) -> None:
        now = self._clock()
        self.outbox.begin(now)
        self._leave_memo()
        # The model begins when its user can be heard. That is also when a browser begins to play: what came before
        # would wait in its jitter buffer, and be late for half a minute.
        self.user_audio.microphone.restart(now, START_PATIENCE_S if transport.sends else 0.0)
        if back:
            self._metrics.sessions_resumed.labels(self.service).inc()
            logger.info("session %s: goes on", self.id.log_id)

    def on_path_lost(self) -> None:
        self.outbox.seen = self.outbox.last
        self._voice.clear()
        if self._moves:
            self.shut_down()

    def on_seen(self, last_seq: int) -> None:
        self.outbox.seen = last_seq

    def on_unreached(self, why: Unreached) -> None:
        self.end_detail = why.detail
        self.end(why.reason)
        if why.log:
            logger.warning("session %s: %s", self.id.log_id, why.log)

    def on_left(self, reason: EndReason) -> None:
        self.end(reason)

    def on_token(self, token: str) -> None:
        self._lock(memo.slot_key(token, self.id.text, self.visitor.principal.name))

    async def look_beside(self) -> None:
        """What is looked at twice a second, whether the client is there or not."""
        await self.listeners.look()
        if self.awaits_slot and self._starting.changed:
            self.outbox.emit(self._starting.tell())
        if not self._memo.covers(self.outbox.last):
            self._leave_memo()

    def _begin(self, how: str) -> None:
        self._limit()
        self._run_task = asyncio.create_task(self._run(), name=f"session-{self.id.log_id}")
        logger.info("session %s: %s, service %s", self.id.log_id, how, self.service)

    async def _begin_hearing(self, stream: EngineStream) -> None:
        await self.user_audio.open(stream, self._engine.info, self._settings, self._detector)
        self._open_captions()

    def _lock(self, key: bytes) -> None:
        """Let another media node take the session over by ``key``, in place of an earlier one."""
        self._slot_digest = hashlib.sha256(key).digest()
        self._leave_memo()

    def _leave_memo(self) -> None:
        """Leave with the engine what another media node has to know, if it may take the session over."""
        microphone, last_seq = self.user_audio.microphone, self.outbox.last + memo.RESERVED
        self._memo = Memo(
            microphone.muted,
            self._stats_interval_ms,
            self._captions_wanted,
            last_seq,
            self.age_ms / 1000,
            self.outbox.time_s,
            self.user_audio.frames_before,
        )
        if self._slot_digest:
            self._slot.lock(self._slot_digest, memo.write(self._memo))

    def _open_captions(self) -> None:
        info, stream = self._engine.info, self._slot.stream
        if info is not None and stream is not None:
            captioner = self._captioners.of(info, stream.language)
            self.user_audio.caption(captioner, self._captions_wanted, self.id.log_id, self._clock())

    def _on_heard(self, event: events.ServerEvent | events.WordsComplete) -> None:
        """Something was heard in the microphone."""
        if not isinstance(event, events.WordsComplete):
            self.outbox.emit(event)
        if self._slot.stream is not None:
            self._slot.stream.take(event)

    def _pass_on(self, command: RoomCommand) -> None:
        """What a member of a room wants. Captions follow their language."""
        stream = self._slot.stream
        if stream is None:
            return
        language = stream.language
        try:
            if not stream.take(command):
                raise BadMessage("This is for members of rooms.")
        except ServerError as error:
            self.warn(error)
        if stream.language != language:
            self._open_captions()

    def _on_speech(self, at_ms: int) -> None:
        """The user begins to speak: an interruption, if the model is speaking. An echo is not interrupted by those
        who make it, nor is a room by its members."""
        info = self._engine.info
        interrupts = info is not None and info.kind not in (ServiceKind.ECHO, ServiceKind.TRANSLATE)
        if self.state is SessionState.SPEAKING and interrupts:
            self._voice.interrupt(self._clock())
            self._metrics.interruptions.labels(self.service).inc()
            self.outbox.emit(events.Interrupted(at_ms))

    def _limit(self) -> None:
        """A visitor's key or token may say how long a session of theirs lasts."""
        limit_s = self.visitor.principal.session_s(self._settings.max_session_s)
        limit_s = max(0.0, limit_s - self.age_ms / 1000)
        loop = asyncio.get_running_loop()
        left_s = min(limit_s, _WARNING_S)
        warning = events.Ending("time_limit", round(left_s * 1000))
        self._timers = [
            loop.call_later(limit_s - left_s, self.outbox.emit, warning),
            loop.call_later(limit_s, self.end, EndReason.TIME_LIMIT),
        ]

    def _play(self, pcm: FloatArray, now: float) -> None:
        if self.presence.transport is not None:
            self.presence.transport.play(pcm, now)
        self.listeners.play(pcm, now)

    def _play_nothing(self, frames: int, now: float) -> None:
        """A frame of the microphone that no model hears is answered by silence: in some protocols the voice tells the
        time."""
        info = self._engine.info
        if self._slot.stream is None and info is not None and info.speaks:
            for _ in range(frames):
                self._play(audio.silence(audio.FRAME_SAMPLES), now)

    def _follow_voice(self, now: float) -> None:
        event, quiet_s = self._voice.follow(self._stats.level_out_dbfs, now)
        if quiet_s is not None:
            self._metrics.interruption_seconds.labels(self.service).observe(quiet_s)
        if event is not None:
            self._machine.apply(event)
            self._emit_state()

    def _emit_state(self, reason: Literal["reset", "restarted"] | None = None) -> None:
        self.outbox.emit(events.State("speaking" if self.state is SessionState.SPEAKING else "listening", reason))

    def _apply(self, settings: events.Settings) -> None:
        if settings.muted is not None:
            self.user_audio.microphone.muted = settings.muted
        if settings.stats_interval_ms is not None:
            self._stats_interval_ms = settings.stats_interval_ms
        if settings.captions is not None:
            self._captions_wanted = settings.captions
            if self.user_audio.captions is not None:
                self.user_audio.captions.want(settings.captions, self._clock())
        self._leave_memo()

    def _reset(self) -> None:
        if not self._machine.live:
            return
        self._slot.reset()
        self.user_audio.reset()
        self._leave_memo()
        self._be_quiet(reset=True)

    def _be_quiet(self, reset: bool = False) -> None:
        """The model says no more of what it was saying. ``reset``: because its client wants a new conversation."""
        self._voice.clear()
        if not self._machine.live:
            return
        if self.presence.transport is not None:
            self.presence.transport.clear()
        self.listeners.clear()
        spoke = self.state is SessionState.SPEAKING
        self._machine.apply(SessionEvent.RESET)
        if spoke or reset:
            self._emit_state("reset" if reset else None)

    async def _run(self) -> None:
        try:
            if not await self.presence.wait():
                if self.connecting:
                    self.on_unreached(self.presence.unreached())
                else:  # it was another media node's
                    self.end(EndReason.PEER_LOST)
                return
            while self._end_task is None:
                await self._keep_time()
                if not await self.presence.wait():
                    self.end(EndReason.PEER_LOST)
        except Exception:  # the border of a task: a fault here costs this session and no other
            logger.exception("session %s failed", self.id.log_id)
            self.end(EndReason.INTERNAL)

    async def _keep_time(self) -> None:
        """What must happen although nothing comes, until the path is lost: the microphone's gaps are filled, figures
        go out, and a peer that has gone without a word is noticed."""
        looked_at = stats_at = self._clock()
        while self._machine.live:
            due = min(self._audio_due(), looked_at + LOOK_INTERVAL_S, stats_at + self._stats_interval_ms / 1000)
            await self._wheel.sleep_towards(due)
            if not self._machine.live:
                return
            now, audio_due = self._clock(), self._audio_due()
            if now >= audio_due - EARLY_S:  # else what came meanwhile has put it off
                now = max(now, audio_due)
                self._poll(now)
            if now < min(looked_at + LOOK_INTERVAL_S, stats_at + self._stats_interval_ms / 1000):
                continue
            figures = await self.presence.look()
            if not self._machine.live or self.presence.transport is None:
                return
            if now >= looked_at + LOOK_INTERVAL_S:
                looked_at = now
                if self.user_audio.captions is not None:
                    self.user_audio.captions.look(now)
                await self.look_beside()
                transport = self.presence.transport
                if transport is None or transport.silent_s(now) > self._settings.peer_timeout_s:
                    self.presence.lose_path()
                    return
            if now >= stats_at + self._stats_interval_ms / 1000:
                stats_at = now
                self._report(figures)

    def _audio_due(self) -> float:
        transport = self.presence.transport
        followed = None if transport is None else transport.deadline
        return self.user_audio.microphone.deadline if followed is None else followed

    def _poll(self, now: float) -> None:
        """Audio that is due and did not come: concealed by a transport that follows some, else silence."""
        transport = self.presence.transport
        if transport is not None and transport.deadline is not None:
            transport.poll(now)
        else:
            self._play_nothing(self.user_audio.poll(now), now)

    def _report(self, figures: TransportFigures) -> None:
        """A period ends: its figures go out."""
        microphone = self.user_audio.microphone
        stats = self._stats.next_period(figures, microphone.filled, microphone.dropped)
        self._publish(stats, figures)
        self.outbox.emit(stats)

    def _publish(self, stats: events.Stats, figures: TransportFigures) -> None:
        transport = self.presence.transport
        follows = transport is not None and transport.deadline is not None
        self._told.publish(stats, follows, self.state is SessionState.SPEAKING)
        too_fast_ms = figures.heard_dropped_ms + self.user_audio.microphone.dropped * audio.FRAME_MS
        self._told.dropped_audio(too_fast_ms / 1000, self._endpoint)

    async def _end(self, reason: EndReason, error: ServerError | None) -> None:
        try:
            await self._release(reason, error)
        except Exception:  # the border of a task: whatever fails, the session must leave the registry
            logger.exception("session %s: not everything could be released", self.id.log_id)
        finally:
            self._metrics.sessions_ended.labels(reason).inc()
            self._on_ended(self)

    async def _release(self, reason: EndReason, error: ServerError | None) -> None:
        await self._slot.stop_waiting()
        if self.outbox.began:
            await self.user_audio.flush_words()
        if self._finished:
            await self.user_audio.answered()
        if self._moves and reason is EndReason.SERVER_SHUTDOWN and self._slot.stream is not None:
            self._leave_memo()
            self._slot.leave()
        else:
            self._slot.close()  # the next client need not wait for the last words of this one
        if self.user_audio.captions is not None:
            await self.user_audio.captions.finish()
        if error is not None:
            self.warn(error)
        self.outbox.emit(events.Disconnected(reason))
        self.outbox.close()
        self._machine.apply(SessionEvent.END)
        for timer in self._timers:
            timer.cancel()
        await self.user_audio.close()
        if self._run_task is not None:
            self._run_task.cancel()
            await asyncio.gather(self._run_task, return_exceptions=True)
        await self.presence.stop_resuming()
        try:
            if self._run_task is not None:
                figures = await self.presence.look()
                final = self._figures(figures)
                self._publish(final, figures)
                self._told.ended(reason, self.age_ms / 1000, final)
        finally:
            await self.listeners.close()
            await self.presence.close()
