"""What every WebSocket endpoint does alike: set-up, close codes of errors, the end of a client that does not read."""

from __future__ import annotations

from aiohttp import WSCloseCode, web

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


def make_socket(
    request: web.Request, max_message_bytes: int, close_s: float, heartbeat_s: float | None = None
) -> web.WebSocketResponse:
    """A WebSocket for this request, which is not prepared yet. Raises BadRequest for a request that asks for none.

    ``close_s``: for a close to be answered. ``heartbeat_s``: between pings, which are sent and answered here; None: the
    endpoint does both itself, because it has to see pongs.
    """
    # Uncompressed: noise does not get smaller, and a compressor for each socket costs more than all else here.
    socket = web.WebSocketResponse(
        autoping=heartbeat_s is not None,
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


def abort(request: web.Request) -> None:
    """Drop the connection of a client that does not read, or is not there: nothing of it may wait in our buffers."""
    if request.transport is not None:
        request.transport.abort()
