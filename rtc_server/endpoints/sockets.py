"""What every WebSocket endpoint does alike: set-up, messages that wait to be sent, close codes of errors, the way to an
end, also for a client that does not read."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from rtc_server.errors import (
    BadMessage,
    BadRequest,
    Draining,
    RateLimited,
    ServerError,
    TooManySessions,
    Unavailable,
)
from rtc_server.web.bearer import socket_protocol
from rtc_server.web.resets import drop

Message = str | bytes
_TURN_S: Final = 0.001


def make_socket(
    request: web.Request, max_message_bytes: int, close_s: float, heartbeat_s: float | None = None
) -> web.WebSocketResponse:
    """A WebSocket for this request, which is not prepared yet. Raises BadRequest for a request that asks for none.

    ``close_s``: for a close to be answered. ``heartbeat_s``: between pings to a client that sends nothing; None: the
    endpoint sends them itself. Those of the client are answered by :func:`receive`.
    """
    # Uncompressed: noise does not get smaller, and a compressor for each socket costs more than all else here.
    socket = web.WebSocketResponse(
        autoping=False,  # aiohttp would answer all that have come in one go, and leave no other client its turn
        heartbeat=heartbeat_s,
        compress=False,
        timeout=close_s,
        max_msg_size=max_message_bytes,
        protocols=socket_protocol(request),
    )
    if not socket.can_prepare(request):
        raise BadRequest("This is the address of a WebSocket.")
    return socket


def close_code(error: ServerError, otherwise: WSCloseCode) -> WSCloseCode:
    """RFC 6455, section 7.4.1; the reason beside it is the error's code. ``otherwise``: for all other errors."""
    match error:
        case Draining():
            return WSCloseCode.GOING_AWAY
        case Unavailable() | RateLimited() | TooManySessions():
            return WSCloseCode.TRY_AGAIN_LATER
        case BadRequest() | BadMessage():
            return WSCloseCode.POLICY_VIOLATION
        case _:
            return otherwise


async def put(socket: web.WebSocketResponse, message: Message) -> None:
    """Send a message as text or as bytes, whichever it is. Raises ConnectionError."""
    if isinstance(message, str):
        await socket.send_str(message)
    else:
        await socket.send_bytes(message)


class Turn:
    """A client that sends without a pause leaves time for all others: it gives way when it has had a millisecond.

    Not after each message: on a busy machine a round of the event loop takes longer than a message's audio lasts, and
    what a client says would wait in its socket, ever longer. ``clock``: seconds of the thread's processor time, for
    time in which the system runs other programs is no turn.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._ends_at = clock()

    async def pass_on(self) -> None:
        """To be called between messages."""
        if self._clock() >= self._ends_at:
            await asyncio.sleep(0)
            self._ends_at = self._clock() + _TURN_S


async def receive(socket: web.WebSocketResponse, turn: Turn, timeout_s: float | None = None) -> WSMessage:
    """The next message, after others have had their turn. A ping has been answered. Raises TimeoutError,
    ConnectionError."""
    await turn.pass_on()
    message = await socket.receive(timeout_s)
    if message.type is WSMsgType.PING:
        await socket.pong(message.data)
    return message


async def receive_data(socket: web.WebSocketResponse, turn: Turn) -> WSMessage:
    """The next message that is neither a ping nor a pong. Raises ConnectionError."""
    while True:
        message = await receive(socket, turn)
        if message.type not in (WSMsgType.PING, WSMsgType.PONG):
            return message


class Outgoing:
    """Messages that wait for a client to take them: at most so many, and so many bytes (None: no limit) of them."""

    def __init__(self, most: int, most_bytes: int | None = None) -> None:
        self.bytes = 0
        self._most = most
        self._most_bytes = most_bytes
        self._messages: deque[Message] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def push(self, message: Message) -> bool:
        """Whether there is room for it; without, the client does not read, and is to be dropped."""
        size = self.bytes + len(message)
        if len(self._messages) >= self._most or (self._most_bytes is not None and size > self._most_bytes):
            return False
        self.bytes = size
        self._messages.append(message)
        return True

    async def send_all(self, socket: web.WebSocketResponse) -> None:
        """Send them in their order. Raises ConnectionError."""
        while self._messages:
            message = self._messages.popleft()
            self.bytes -= len(message)
            await put(socket, message)


async def say_goodbye(
    request: web.Request,
    socket: web.WebSocketResponse,
    close_s: float,
    code: int,
    reason: str,
    send_last: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Send what is last and close, within ``close_s``; drop a client that does not take it in time."""
    try:
        async with asyncio.timeout(close_s):
            if send_last is not None and not socket.closed:
                await send_last()
            await socket.close(code=code, message=reason.encode())
    except (TimeoutError, ConnectionError):
        abort(request)
    else:
        # aiohttp's own time limit for the client's answer may end first. It closes the transport then, which waits, for
        # ever, until the client has read what lies in the buffer.
        if request.transport is not None and request.transport.get_write_buffer_size():
            abort(request)


def abort(request: web.Request) -> None:
    """Drop the connection of a client that does not read, or is not there: nothing of it may wait in our buffers."""
    drop(request.transport)
