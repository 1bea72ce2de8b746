"""A WebSocket as the transport of a session, whatever is spoken on it: what waits to be sent, within bounds and at the
pace of real time, and the way to an end.

A protocol is a subclass, which says what its messages are.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.endpoints.sockets import (
    Message,
    Outgoing,
    Turn,
    abort,
    close_code,
    make_socket,
    put,
    receive_data,
    say_goodbye,
)
from rtc_server.errors import ServerError
from rtc_server.protocols.events import ServerEvent
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason
from rtc_server.sessions.transport import TransportFigures, TransportOwner, Unreached
from rtc_server.signaling import REGISTRY
from rtc_server.system.wheel import Wheel
from rtc_server.web.gate import visitor_of_a_socket

logger = logging.getLogger(__name__)

CLOSE_S: Final = 2.0
"""For the last messages to be taken, and the close to be answered."""
_HEARTBEAT_S: Final = 10.0
_AUDIO_FRAMES: Final = 6
"""Of voice that waits to be sent, at most: 480 ms, as in a playout buffer. Older ones go."""
_TEXTS: Final = 256
_TEXT_BYTES: Final = 1024 * 1024
_LEAST_INTERVAL_S: Final = 0.06
"""Between two frames, which last 80 ms: a client that plays at once drops what comes in a burst, so what was held up
catches up slowly."""
_CLOSE_CODES: Final = {
    EndReason.SERVER_SHUTDOWN: WSCloseCode.GOING_AWAY,
    EndReason.PROTOCOL_ABUSE: WSCloseCode.POLICY_VIOLATION,
    EndReason.CONNECT_TIMEOUT: WSCloseCode.POLICY_VIOLATION,
    EndReason.ENGINE_FAILED: WSCloseCode.INTERNAL_ERROR,
    EndReason.INTERNAL: WSCloseCode.INTERNAL_ERROR,
}
"""RFC 6455, section 7.4.1. All other ends are normal ones."""


class SocketTransport(abc.ABC):
    """One client's WebSocket as the transport of a session. :meth:`run` is its life."""

    endpoint = "websocket"

    def __init__(self, owner: TransportOwner, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.opened_at = time.monotonic()
        self.connected = False
        """Since its first audio: a client that sends none only takes a place, and not for long."""
        self.name = "WebSocket"
        self.sends = True
        self.failure = None
        self.deadline = None
        """Over TCP nothing is lost or late: the session's microphone decides what a pause is."""
        self.owner: TransportOwner | None = owner
        self.reason = EndReason.BYE
        """Why it ends, as far as the session has said."""
        self.last_words: list[Message] = []
        """What goes out when all else has."""
        self._request = request
        self._socket = socket
        self._texts = Outgoing(_TEXTS, _TEXT_BYTES)
        self._frames: deque[FloatArray] = deque()
        self._news = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._all_sent.set()
        self._next_frame_at = 0.0
        self._dropped = 0
        self._spoke = False
        self._begun = False
        self._writing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def greeting(self) -> list[Message]:
        """What the client gets before the session's first event."""
        return []

    @abc.abstractmethod
    async def take(self, message: Message) -> None:
        """A message of the client. Raises ServerError for one that ends it."""

    @abc.abstractmethod
    def send(self, message: str, event: ServerEvent | None) -> bool:
        """As :meth:`rtc_server.sessions.transport.Transport.send`."""

    @abc.abstractmethod
    def voice(self, pcm: FloatArray) -> Message:
        """A frame of the model's voice as it is sent."""

    @property
    def wheel(self) -> Wheel:
        """By which all of this process are woken."""
        return self._request.app[REGISTRY].wheel

    @property
    def channel_open(self) -> bool:
        return self._begun and self.owner is not None and not self._socket.closed

    async def run(self) -> None:
        """Until the client leaves, or the session closes it. Raises ServerError for what ends it."""
        for message in self.greeting():
            await put(self._socket, message)
        self._begun = True
        if self.owner is not None:
            self.owner.on_channel_open(self)
        self._writing = asyncio.create_task(self._write(), name="socket-write")
        try:
            orderly = await self._read()
        finally:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        if self.owner is not None:
            self.owner.on_gone(self, orderly)

    def poll(self, now: float) -> None:  # noqa: B027 - nothing to be added by a protocol
        """Nothing is ever due: see :attr:`deadline`."""

    def play(self, pcm: FloatArray, now: float) -> None:
        if not self.connected:
            return
        if len(self._frames) >= _AUDIO_FRAMES:
            self._frames.popleft()
            self._dropped += 1
        self._frames.append(pcm)
        self._wake()

    def clear(self) -> None:
        self._frames.clear()
        self._wake()

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
        self.owner = None

    async def close(self, flush: bool = True) -> None:
        """Close, after the last messages have gone out, if the client takes them in time."""
        await asyncio.shield(self._begin_to_close(flush))

    def expire(self) -> None:
        """Begin to close, for what let it in is good no longer; :meth:`close` waits for it."""
        self.reason = EndReason.TIME_LIMIT
        self._begin_to_close(flush=True)

    def _begin_to_close(self, flush: bool) -> asyncio.Task[None]:
        self.retire()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(flush), name="socket-close")
        return self._closing

    def say(self, message: Message) -> None:
        """Queue a message; a client that does not read so many is dropped."""
        if self._texts.push(message):
            self._wake()
        else:  # of frames the oldest are dropped, but no message may be lost
            abort(self._request)

    def hear(self, pcm: FloatArray) -> None:
        """Samples of the client's microphone, for the session."""
        if self.owner is not None and not self.connected:
            self.connected = True
            self.owner.on_connected(self)
        if self.owner is not None:
            self.owner.on_audio(self, pcm, time.monotonic())

    def _wake(self) -> None:
        self._all_sent.clear()
        self._news.set()

    async def _read(self) -> bool:
        """Whether the client said goodbye. Raises ServerError."""
        turn = Turn()
        while True:
            message = await receive_data(self._socket, turn)
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return message.type is WSMsgType.CLOSE
            await self.take(message.data)

    async def _write(self) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await self._texts.send_all(self._socket)
                if self._frames:
                    await self._write_frame()
                if not self._news.is_set():
                    self._all_sent.set()
        except ConnectionError:
            pass  # the reader notices, too
        except Exception:  # the border of a task: the fault is ours, is logged, and costs this client alone
            logger.exception("nothing more can be sent to a client")
            abort(self._request)

    async def _write_frame(self) -> None:
        """One frame, when it is due; if more wait, this is called again."""
        wheel = self.wheel
        if wheel.now() < self._next_frame_at:
            await wheel.sleep_until(self._next_frame_at)
        if not self._frames:  # cleared meanwhile
            return
        self._next_frame_at = wheel.now() + _LEAST_INTERVAL_S
        frame = self._frames.popleft()
        if self._frames or self._texts:
            self._news.set()
        await put(self._socket, self.voice(frame))
        if not self._spoke and self.owner is not None:
            self._spoke = True
            self.owner.on_first_voice(self)

    async def _close(self, flush: bool) -> None:
        if not self._socket.prepared:  # refused before it was one
            return
        code = _CLOSE_CODES.get(self.reason, WSCloseCode.OK)
        send_last = self._flush if flush else None
        await say_goodbye(self._request, self._socket, CLOSE_S, code, self.reason, send_last)

    async def _flush(self) -> None:
        """What waits goes out: by its task, in its order, or here if that has ended."""
        if self._writing is not None and not self._writing.done():
            sent = asyncio.create_task(self._all_sent.wait(), name="socket-flush")
            try:
                await asyncio.wait((sent, self._writing), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sent.cancel()
        await self._texts.send_all(self._socket)
        for message in self.last_words:
            await put(self._socket, message)


async def until_over(session: Session, transport: SocketTransport) -> None:
    """The life of a session's socket, to the end of both."""
    try:
        await transport.run()
    except ServerError as error:
        await session.end(EndReason.PROTOCOL_ABUSE, error)
    except ConnectionError:
        pass
    finally:
        await asyncio.shield(session.end(EndReason.PEER_LOST))


@contextlib.contextmanager
def as_long_as_its_token(request: web.Request, transport: SocketTransport) -> Iterator[None]:
    """For a socket beside a session, which goes on without it. A session's own ends with the session."""
    most_s = visitor_of_a_socket(request).principal.max_session_s
    timer = None if most_s is None else asyncio.get_running_loop().call_later(most_s, transport.expire)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def session_socket(request: web.Request, max_message_bytes: int) -> web.WebSocketResponse:
    """The WebSocket of a session, which is not prepared yet. Raises BadRequest for a request that asks for none."""
    return make_socket(request, max_message_bytes, CLOSE_S, _HEARTBEAT_S)


@contextlib.asynccontextmanager
async def telling_refusals(
    request: web.Request, socket: web.WebSocketResponse, words: Callable[[ServerError], Message | None]
) -> AsyncIterator[None]:
    """What is refused inside is refused as HTTP, but for browsers, which show a page nothing of it: those are told as
    the protocol has it, as is a client whose socket is open. ``words``: see :func:`refuse`."""
    try:
        yield
    except ServerError as error:
        if not socket.prepared:
            if hdrs.ORIGIN not in request.headers:
                raise
            await socket.prepare(request)
        await refuse(request, socket, error, words(error))


async def refuse(
    request: web.Request, socket: web.WebSocketResponse, error: ServerError, words: Message | None
) -> None:
    """Close the socket of a session that has not begun. ``words``: of its protocol, if it has any for this."""
    logger.info("a conversation is refused: %s", error.code)
    send_last = None if words is None else functools.partial(put, socket, words)
    await say_goodbye(request, socket, CLOSE_S, close_code(error, WSCloseCode.POLICY_VIOLATION), error.code, send_last)
