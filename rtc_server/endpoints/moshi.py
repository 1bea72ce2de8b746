"""Moshi's own WebSocket: ``/api/chat``, and ``/ws`` for a dialect of it that the operator chooses.

The transport of such a session (Ogg/Opus both ways, a frame at a time, text), and the handler that opens it. What the
messages are is ``protocols.moshi``'s; all else is the session's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from rtc_server import audio
from rtc_server.access.rate_limit import TokenBucket
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.endpoints.sockets import abort, close_code, make_socket
from rtc_server.errors import NotFound, RateLimited, ServerError
from rtc_server.media.ogg_opus import OggOpusReader, OggOpusWriter
from rtc_server.protocols import events, moshi
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.moshi import Dialect
from rtc_server.services import TRANSCRIBE
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason
from rtc_server.sessions.transport import TransportFigures, TransportOwner, Unreached
from rtc_server.signaling import REGISTRY, SETTINGS
from rtc_server.web.gate import visitor_of
from rtc_server.web.routes import Policy, Routes

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 64 * 1024
_MESSAGES_PER_S: Final = 100
"""Clients send 12.5 to 50 a second, by the length of their pages."""
_MESSAGE_BURST: Final = 300
_PACKETS_PER_S: Final = 200
"""Of Opus: twice as many as the shortest that are in use, of 10 ms, are in real time."""
_PACKET_BURST: Final = 1000
_PACKETS_AT_ONCE: Final = 16
"""Decoded before others have their turn: half a millisecond."""
_AUDIO_FRAMES: Final = 6
"""Of voice that waits to be sent, at most: 480 ms, as in a playout buffer. Older ones go."""
_TEXTS: Final = 256
_LEAST_INTERVAL_S: Final = 0.06
"""Between two frames, which last 80 ms: a client that plays at once drops what comes in a burst, so what was held up
catches up slowly."""
_HEARTBEAT_S: Final = 10.0
_CLOSE_S: Final = 2.0
_CLOSE_CODES: Final = {
    EndReason.SERVER_SHUTDOWN: WSCloseCode.GOING_AWAY,
    EndReason.PROTOCOL_ABUSE: WSCloseCode.POLICY_VIOLATION,
    EndReason.CONNECT_TIMEOUT: WSCloseCode.POLICY_VIOLATION,
    EndReason.ENGINE_FAILED: WSCloseCode.INTERNAL_ERROR,
    EndReason.INTERNAL: WSCloseCode.INTERNAL_ERROR,
}
"""RFC 6455, section 7.4.1. All other ends are normal ones."""

routes = Routes()


class SocketTransport:
    """One client's WebSocket as the transport of a session. :meth:`run` is its life."""

    def __init__(
        self, owner: TransportOwner, request: web.Request, socket: web.WebSocketResponse, dialect: Dialect, bitrate: int
    ) -> None:
        self.opened_at = time.monotonic()
        self.connected = False
        """Since its first audio: a client that sends none only takes a place, and not for long."""
        self.name = "WebSocket"
        self.sends = True
        self.failure = None
        self.deadline = None
        """Over TCP nothing is lost or late: the session's microphone decides what a pause is."""
        self._owner: TransportOwner | None = owner
        self._request = request
        self._socket = socket
        self._dialect = dialect
        self._reader = OggOpusReader(lenient=True)
        self._writer = OggOpusWriter(bitrate)
        self._bucket = TokenBucket(_MESSAGES_PER_S, _MESSAGE_BURST, self.opened_at)
        self._packets = TokenBucket(_PACKETS_PER_S, _PACKET_BURST, self.opened_at)
        self._texts: deque[bytes] = deque()
        self._frames: deque[FloatArray] = deque()
        self._news = asyncio.Event()
        self._next_frame_at = 0.0
        self._dropped = 0
        self._spoke = False
        self._begun = False
        self._reason = EndReason.BYE
        self._closing: asyncio.Task[None] | None = None

    @property
    def channel_open(self) -> bool:
        return self._begun and self._owner is not None and not self._socket.closed

    async def run(self) -> None:
        """Until the client leaves, or the session closes it. Raises BadMessage, RateLimited."""
        if self._dialect.handshake:
            await self._socket.send_bytes(moshi.HANDSHAKE_MESSAGE)
        if self._dialect.speaks:
            await self._socket.send_bytes(moshi.encode_audio(self._writer.headers()))
        self._begun = True
        if self._owner is not None:
            self._owner.on_channel_open(self)
        writing = asyncio.create_task(self._write(), name="moshi-write")
        try:
            orderly = await self._read()
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        if self._owner is not None:
            self._owner.on_gone(self, orderly)

    def poll(self, now: float) -> None:
        """Nothing is ever due: see :attr:`deadline`."""

    def send(self, message: str, event: events.ServerEvent | None) -> bool:
        """Send the text and the errors among a session's messages."""
        if not self.channel_open:
            return False
        match event:
            case events.Text(delta):
                self._say(moshi.encode_text(delta, self._dialect))
            case events.Word(text):
                self._say(moshi.encode_text(f"{text} ", self._dialect))
            case events.Error(message=sentence) if self._dialect.errors:
                self._say(moshi.encode_error(sentence))
            case events.Disconnected(reason):
                self._reason = EndReason(reason)
            case _:
                pass
        return True

    def play(self, pcm: FloatArray, now: float) -> None:
        if not self._dialect.speaks or not self.connected:
            return
        if len(self._frames) >= _AUDIO_FRAMES:
            self._frames.popleft()
            self._dropped += 1
        self._frames.append(pcm)
        self._news.set()

    def clear(self) -> None:
        self._frames.clear()

    async def look(self) -> TransportFigures:
        return TransportFigures(
            playout_ms=float(len(self._frames) * audio.FRAME_MS),
            playout_dropped_ms=float(self._dropped * audio.FRAME_MS),
        )

    def silent_s(self, now: float) -> float:
        """The socket's own heartbeat ends it if pings are not answered."""
        return 0.0

    def unreached(self) -> Unreached:
        return Unreached(EndReason.CONNECT_TIMEOUT, "No audio came.", "no audio came")

    def retire(self) -> None:
        self._owner = None

    async def close(self, flush: bool = True) -> None:
        """Close, after the last messages have gone out, if the client takes it in time."""
        self.retire()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(flush), name="moshi-close")
        await asyncio.shield(self._closing)

    def _say(self, message: bytes) -> None:
        if len(self._texts) >= _TEXTS:  # it does not read: its frames are dropped, and these are lost with it
            abort(self._request)
            return
        self._texts.append(message)
        self._news.set()

    async def _read(self) -> bool:
        """Whether the client said goodbye. Raises BadMessage, RateLimited."""
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                if not self._bucket.allow(time.monotonic()):
                    raise RateLimited("Messages come faster than audio lasts.")
                await self._take(moshi.audio_of(message.data, self._dialect))
            elif message.type is not WSMsgType.TEXT:
                return message.type is WSMsgType.CLOSE

    async def _take(self, ogg: bytes) -> None:
        """A client that sends without a pause, or many packets in a message, leaves time for all others."""
        for number, pcm in enumerate(self._reader.read(ogg), 1):
            if not self._packets.allow(time.monotonic()):
                raise RateLimited("Audio comes faster than it lasts.")
            self._hear(pcm)
            if number % _PACKETS_AT_ONCE == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _hear(self, pcm: FloatArray) -> None:
        if self._owner is not None and not self.connected:
            self.connected = True
            self._owner.on_connected(self)
        if self._owner is not None:
            self._owner.on_audio(self, pcm, time.monotonic())

    async def _write(self) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._texts:
                    await self._socket.send_bytes(self._texts.popleft())
                if self._frames:
                    await self._write_frame()
        except ConnectionError:
            pass  # the reader notices, too
        except Exception:  # the border of a task: the fault is ours, is logged, and costs this client alone
            logger.exception("nothing more can be sent to a client")
            abort(self._request)

    async def _write_frame(self) -> None:
        """One frame, when it is due; if more wait, this is called again."""
        wait_s = self._next_frame_at - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if not self._frames:  # cleared meanwhile
            return
        self._next_frame_at = time.monotonic() + _LEAST_INTERVAL_S
        frame = self._frames.popleft()
        if self._frames or self._texts:
            self._news.set()
        await self._socket.send_bytes(moshi.encode_audio(self._writer.encode(frame)))
        if not self._spoke and self._owner is not None:
            self._spoke = True
            self._owner.on_first_voice(self)

    async def _close(self, flush: bool) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                while flush and self._texts and not self._socket.closed:
                    await self._socket.send_bytes(self._texts.popleft())
                code = _CLOSE_CODES.get(self._reason, WSCloseCode.OK)
                await self._socket.close(code=code, message=self._reason.encode())
        except (TimeoutError, ConnectionError):
            abort(self._request)


@routes.get("/api/chat", Policy(), head=False)
async def chat(request: web.Request) -> web.WebSocketResponse:
    """A conversation with the server's model, for clients of Moshi's."""
    return await _converse(request, moshi.MOSHI, None)


@routes.get("/ws", Policy(), head=False)
async def other_dialect(request: web.Request) -> web.WebSocketResponse:
    """The dialect that ``--ws`` chooses: QuiLLMan's conversation, or a transcript as text. Raises NotFound if it says
    neither."""
    match request.app[SETTINGS].ws:
        case "quillman":
            return await _converse(request, moshi.QUILLMAN, None)
        case "transcript":
            return await _converse(request, moshi.TRANSCRIPT, TRANSCRIBE)
        case _:
            raise NotFound


async def _converse(request: web.Request, dialect: Dialect, service: str | None) -> web.WebSocketResponse:
    """One socket's life. What is refused is refused as HTTP, but for browsers, which show a page nothing of it: those
    are told as the protocol has it."""
    settings = request.app[SETTINGS]
    socket = make_socket(request, max_message_bytes=MAX_MESSAGE_BYTES, close_s=_CLOSE_S, heartbeat_s=_HEARTBEAT_S)
    try:
        with request.app[REGISTRY].counted():
            await _open(request, socket, dialect, service, settings)
    except ServerError as error:
        if not socket.prepared:
            if hdrs.ORIGIN not in request.headers:
                raise
            await socket.prepare(request)
        await _refuse(socket, error, dialect)
    return socket


async def _open(
    request: web.Request, socket: web.WebSocketResponse, dialect: Dialect, service: str | None, settings: Settings
) -> None:
    opening = request.app[REGISTRY].opening(service, OfferOptions(), visitor_of(request), resumable=False)
    async with opening as session:
        transport = SocketTransport(session, request, socket, dialect, settings.bitrate_bps)
        await socket.prepare(request)
        session.attach(transport)
        session.start()
    await _until_over(session, transport.run)


async def _until_over(session: Session, run: Callable[[], Awaitable[None]]) -> None:
    try:
        await run()
    except ServerError as error:
        await session.end(EndReason.PROTOCOL_ABUSE, error)
    except ConnectionError:
        pass
    finally:
        await asyncio.shield(session.end(EndReason.PEER_LOST))


async def _refuse(socket: web.WebSocketResponse, error: ServerError, dialect: Dialect) -> None:
    logger.info("a conversation is refused: %s", error.code)
    with contextlib.suppress(ConnectionError):
        if dialect.errors:
            await socket.send_bytes(moshi.encode_error(error.message))
        await socket.close(code=close_code(error, WSCloseCode.POLICY_VIOLATION), message=error.code.encode())
