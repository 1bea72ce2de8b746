"""The door for clients of Kyutai's streaming speech-to-text: one WebSocket, one stream of the service ``transcribe``.

Owns the open sockets, and what each may buffer. What the messages are is ``protocols.asr``'s; how
audio becomes words, ``transcription.stream``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from rtc_server.access.principals import Visitor
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.config import Settings
from rtc_server.endpoints.sockets import abort, close_code, make_socket
from rtc_server.engine.client import EngineClient
from rtc_server.errors import (
    BadMessage,
    BadRequest,
    Forbidden,
    InternalError,
    RequestTimeout,
    ServerError,
    TimeLimit,
    Unauthorized,
    UnknownService,
)
from rtc_server.media.backlog import Backlog
from rtc_server.media.ogg_opus import OggOpusReader
from rtc_server.metrics import Metrics
from rtc_server.protocols import asr
from rtc_server.services import TRANSCRIBE
from rtc_server.sessions.admission import Admission, Guest
from rtc_server.transcription.stream import Heard, Step, Transcriber
from rtc_server.transcription.words import Word, WordEnd
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes

logger = logging.getLogger(__name__)

ASR_PATH: Final = "/api/asr-streaming"


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one socket may keep, and for how long it may be quiet.

    ``buffered_s``: of audio that is not heard yet, after which it is not read, so that pings are not seen either; a
    message more may be there. All sockets together have ``all_buffered_s``; each has ``own_buffered_s`` of it in any
    case. ``outgoing`` and ``markers``: messages that wait, at most. ``first_audio_s``: from the start. ``idle_s``:
    without audio that comes or is heard. ``close_s``: for a close to be answered.
    """

    buffered_s: float = 600.0
    all_buffered_s: float = 3600.0
    own_buffered_s: float = 60.0
    outgoing: int = 4096
    markers: int = 1024
    ping_s: float = 10.0
    first_audio_s: float = 15.0
    idle_s: float = 120.0
    close_s: float = 2.0


class AsrSockets:
    """All open sockets of this process."""

    def __init__(
        self, admission: Admission, settings: Settings, metrics: Metrics, limits: SocketLimits | None = None
    ) -> None:
        self.limits = limits or SocketLimits()
        self._admission = admission
        self._settings = settings
        self._metrics = metrics
        self._open: set[AsrSocket] = set()
        metrics.asr_sockets.set_function(lambda: len(self._open))

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One socket's life. Raises UnknownService, Forbidden, BadRequest before it is a WebSocket; after that, all
        that goes wrong is told as the protocol has it: browsers show a page nothing of an HTTP error."""
        visitor = visitor_of(request)
        if TRANSCRIBE not in self._admission.engines:
            raise UnknownService(tuple(self._admission.engines))
        if not visitor.principal.may_use(TRANSCRIBE):
            raise Forbidden
        response = make_socket(request, max_message_bytes=2 * asr.MAX_MESSAGE_BYTES, close_s=self.limits.close_s)
        await response.prepare(request)
        socket = AsrSocket(request, response, self.limits, self._metrics, self._has_room)
        self._open.add(socket)
        try:
            await self._run(socket, visitor)
        finally:
            self._open.discard(socket)
        return response

    async def _run(self, socket: AsrSocket, visitor: Visitor) -> None:
        """Under the limits of all sessions, and for no longer than its token is good."""
        principal = visitor.principal
        ends: list[tuple[float, ServerError]] = [
            (self._admission.longest_s(visitor), TimeLimit("This has lasted as long as it may."))
        ]
        if principal.expires_at is not None:
            expired = Unauthorized("The token that opened this is good no longer.")
            ends.append((principal.expires_at - time.time(), expired))
        try:
            with self._admission.guest(TRANSCRIBE, visitor, socket.end, connecting=True) as guest:
                end_s, error = min(ends, key=lambda end: end[0])
                timer = asyncio.get_running_loop().call_later(end_s, socket.end, error)
                try:
                    await socket.run(guest, self._settings.pause_threshold)
                finally:
                    timer.cancel()
        except ServerError as error:
            await socket.refuse(error)

    def _has_room(self, buffered_samples: int) -> bool:
        """Whether a socket that has buffered so much may take more."""
        limits, own_s = self.limits, buffered_samples / MODEL_RATE_HZ
        if own_s >= limits.buffered_s:
            return False
        in_all_s = sum(socket.buffered_samples for socket in self._open) / MODEL_RATE_HZ
        return own_s < limits.own_buffered_s or in_all_s < limits.all_buffered_s


class AsrSocket:
    """One client. Reads, transcribes and writes side by side; the first thing that ends one of them ends all."""

    def __init__(
        self,
        request: web.Request,
        response: web.WebSocketResponse,
        limits: SocketLimits,
        metrics: Metrics,
        has_room: Callable[[int], bool],
    ) -> None:
        self._request = request
        self._response = response
        self._limits = limits
        self._metrics = metrics
        self._has_room = has_room
        self._ogg: OggOpusReader | None = None
        self._backlog = Backlog()
        self._room = asyncio.Event()
        self._alive_until = 0.0
        self._received_samples = 0
        self._heard_frames = 0
        self._delay_frames = 0
        self._markers: deque[tuple[int, int]] = deque()
        self._of_this_step: list[asr.ServerMessage] = []
        self._outgoing: deque[bytes] = deque()
        self._outgoing_waits = asyncio.Event()
        self._words = 0
        self._ended = asyncio.Event()
        self._error: ServerError | None = None

    async def run(self, guest: Guest, pause_threshold: float) -> None:
        """Until it is ended; the slot is free and the socket closed when it returns."""
        self._guest = guest
        transcribe = functools.partial(self._transcribe, guest.engine, pause_threshold)
        work = asyncio.create_task(self._guard(transcribe), name="asr-socket")
        try:
            await self._ended.wait()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            logger.info(
                "a transcription ends: %s, %.1f s of audio received, %.1f s heard, %d words",
                "left" if self._error is None else self._error.code,
                self._received_samples / MODEL_RATE_HZ,
                self._heard_frames * FRAME_SAMPLES / MODEL_RATE_HZ,
                self._words,
            )
            await self._say_goodbye()

    async def refuse(self, error: ServerError) -> None:
        """It never began. Tells why, and closes."""
        logger.info("a transcription is refused: %s", error.code)
        self.end(error)
        await self._say_goodbye()

    def end(self, error: ServerError | None) -> None:
        """End it, and tell the client why; without an ``error`` it has left. The first call counts."""
        if not self._ended.is_set():
            self._error = error
            self._ended.set()

    async def _transcribe(self, engine: EngineClient, pause_threshold: float) -> None:
        transcriber = Transcriber(engine, self._on_heard, pause_threshold, prefix=False, on_error=self.end)
        async with transcriber:
            logger.info("a transcription begins")
            self._delay_frames = transcriber.delay_frames
            self._send(asr.Ready())
            async with asyncio.TaskGroup() as group:
                group.create_task(self._guard(self._read), name="asr-read")
                group.create_task(self._guard(functools.partial(self._feed, transcriber)), name="asr-feed")
                group.create_task(self._guard(self._write), name="asr-write")

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """However ``work`` ends, the socket ends with it."""
        try:
            await work()
        except ServerError as error:
            self.end(error)
        except ConnectionError:
            self.end(None)
        except Exception:  # the border of a task: the fault is ours, is logged, and costs this client alone
            logger.exception("a transcription failed")
            self.end(InternalError())
        else:
            self.end(None)

    async def _read(self) -> None:
        limits = self._limits
        quiet_s = min(limits.first_audio_s, limits.idle_s)
        self._alive_until = time.monotonic() + quiet_s
        while True:
            left_s = self._alive_until - time.monotonic()
            if left_s <= 0:
                quiet_s = quiet_s if self._guest.connecting else limits.idle_s
                raise RequestTimeout(f"No audio came for {quiet_s:g} s.")
            try:
                message = await self._response.receive(min(left_s, 2 * limits.ping_s))
            except TimeoutError:
                if left_s > 2 * limits.ping_s:
                    raise RequestTimeout("Pings are not answered.") from None
                continue
            match message.type:
                case WSMsgType.BINARY:
                    await self._take(asr.parse_client_message(message.data))
                case WSMsgType.PING:
                    await self._response.pong(message.data)
                case WSMsgType.PONG | WSMsgType.TEXT:
                    pass
                case _:
                    return

    async def _take(self, message: asr.ClientMessage) -> None:
        match message:
            case asr.Init():
                self._send(asr.Ready())
            case asr.Audio(pcm):
                await self._buffer(pcm)
            case asr.OggOpus(data):
                self._ogg = self._ogg or OggOpusReader()
                for pcm in self._ogg.read(data):
                    await self._buffer(pcm)
            case asr.Marker(marker):
                self._mark(marker)

    @property
    def buffered_samples(self) -> int:
        return max(0, self._received_samples - self._heard_frames * FRAME_SAMPLES)

    async def _buffer(self, pcm: FloatArray) -> None:
        """Keep ``pcm`` for the model; waits while there is too much of it, and so nothing more is read.

        Much may be there before: what comes behind it, as pings, would not be seen, and clients take a server that
        answers no ping for dead.
        """
        if not pcm.size:
            return
        self._stay_alive()
        self._received_samples += pcm.size
        self._backlog.push(pcm)
        await asyncio.sleep(0)  # a client that sends without a pause leaves time for all others
        while not self._has_room(self.buffered_samples):
            self._room.clear()
            await self._room.wait()

    def _stay_alive(self) -> None:
        """Audio has come, or is heard."""
        self._guest.connecting = False
        self._alive_until = time.monotonic() + self._limits.idle_s

    def _mark(self, marker: int) -> None:
        if len(self._markers) >= self._limits.markers:
            raise BadMessage("Too many markers wait for audio to follow them.")
        self._markers.append((self._received_samples // FRAME_SAMPLES + self._delay_frames, marker))
        self._send_due_markers()

    async def _feed(self, transcriber: Transcriber) -> None:
        while True:
            await transcriber.feed(await self._backlog.pop())

    def _on_heard(self, heard: Heard) -> None:
        match heard:
            case Word(text, start_s):
                self._words += 1
                self._metrics.asr_words.inc()
                self._of_this_step.append(asr.Word(text, start_s))
            case WordEnd(stop_s):
                self._of_this_step.append(asr.EndWord(stop_s))
            case Step(frame, pauses):
                self._heard_frames = frame
                self._room.set()
                self._stay_alive()
                self._tell_step(pauses)
            case _:
                pass

    def _tell_step(self, pauses: tuple[float, ...]) -> None:
        """In the order of the original: the step, what was written in it, the markers that it reaches."""
        if pauses:
            self._send(asr.Step(self._heard_frames, pauses, self.buffered_samples))
        for message in self._of_this_step:
            self._send(message)
        self._of_this_step.clear()
        self._send_due_markers()

    def _send_due_markers(self) -> None:
        while self._markers and self._markers[0][0] <= self._heard_frames:
            self._send(asr.Marker(self._markers.popleft()[1]))

    def _send(self, message: asr.ServerMessage) -> None:
        if len(self._outgoing) >= self._limits.outgoing:
            self.end(BadRequest("What this server sends is not read."))
            return
        self._outgoing.append(asr.encode_server_message(message))
        self._outgoing_waits.set()

    async def _write(self) -> None:
        """Pings go out however much else does: the client may be waiting for the last of it, and say nothing."""
        ping_at = time.monotonic() + self._limits.ping_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ping_at - time.monotonic()):
                    await self._outgoing_waits.wait()
            self._outgoing_waits.clear()
            await self._flush()
            if time.monotonic() >= ping_at:
                await self._response.ping()
                ping_at = time.monotonic() + self._limits.ping_s

    async def _flush(self) -> None:
        while self._outgoing:
            await self._response.send_bytes(self._outgoing.popleft())

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(self._limits.close_s):
                error = self._error
                if error is None or self._response.closed:
                    await self._response.close()
                    return
                await self._flush()
                await self._response.send_bytes(asr.encode_server_message(asr.Error(error.message, error.code)))
                await self._response.close(
                    code=close_code(error, WSCloseCode.INTERNAL_ERROR), message=error.code.encode()
                )
        except (TimeoutError, ConnectionError):
            abort(self._request)


ASR_SOCKETS: Final = web.AppKey("asr_sockets", AsrSockets)

routes = Routes()


@routes.get(ASR_PATH, Policy(), head=False)
async def asr_streaming(request: web.Request) -> web.WebSocketResponse:
    return await request.app[ASR_SOCKETS].serve(request)
