"""One client of streaming speech-to-text: its WebSocket, what it may buffer, and the way to its end.

What the messages are is ``protocols.asr``'s; how audio becomes words, ``transcription.stream``'s; who gets a socket,
``endpoints.asr``'s.
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

from aiohttp import WSCloseCode, WSMsgType, web

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.endpoints.sockets import Outgoing, Turn, close_code, put, receive, say_goodbye
from rtc_server.engine.engine import Engine
from rtc_server.errors import (
    BadMessage,
    BadRequest,
    InternalError,
    RequestTimeout,
    ServerError,
)
from rtc_server.media.backlog import Backlog
from rtc_server.media.ogg_opus import OggOpusReader
from rtc_server.metrics import Metrics
from rtc_server.protocols import asr
from rtc_server.sessions.admission import Guest
from rtc_server.transcription.stream import Heard, Step, Transcriber
from rtc_server.transcription.words import Word, WordEnd

logger = logging.getLogger(__name__)


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
        self._turn = Turn()
        self._room = asyncio.Event()
        self._alive_until = 0.0
        self._received_samples = 0
        self._heard_frames = 0
        self._delay_frames = 0
        self._markers: deque[tuple[int, int]] = deque()
        self._of_this_step: list[asr.ServerMessage] = []
        self._outgoing = Outgoing(limits.outgoing)
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

    async def _transcribe(self, engine: Engine, pause_threshold: float) -> None:
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
                message = await receive(self._response, self._turn, min(left_s, 2 * limits.ping_s))
            except TimeoutError:
                if left_s > 2 * limits.ping_s:
                    raise RequestTimeout("Pings are not answered.") from None
                continue
            match message.type:
                case WSMsgType.BINARY:
                    await self._take(asr.parse_client_message(message.data))
                case WSMsgType.PING | WSMsgType.PONG | WSMsgType.TEXT:
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
        await self._turn.pass_on()
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
        if self._outgoing.push(asr.encode_server_message(message)):
            self._outgoing_waits.set()
        else:
            self.end(BadRequest("What this server sends is not read."))

    async def _write(self) -> None:
        """Pings go out however much else does: the client may be waiting for the last of it, and say nothing."""
        ping_at = time.monotonic() + self._limits.ping_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ping_at - time.monotonic()):
                    await self._outgoing_waits.wait()
            self._outgoing_waits.clear()
            await self._outgoing.send_all(self._response)
            if time.monotonic() >= ping_at:
                await self._response.ping()
                ping_at = time.monotonic() + self._limits.ping_s

    async def _say_goodbye(self) -> None:
        error = self._error
        if error is None:
            await say_goodbye(self._request, self._response, self._limits.close_s, WSCloseCode.OK, "")
            return

        async def tell() -> None:
            await self._outgoing.send_all(self._response)
            await put(self._response, asr.encode_server_message(asr.Error(error.message, error.code)))

        code = close_code(error, WSCloseCode.INTERNAL_ERROR)
        await say_goodbye(self._request, self._response, self._limits.close_s, code, error.code, tell)
