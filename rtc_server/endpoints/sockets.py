"""What every WebSocket endpoint does alike: close codes of errors, and the end of a client that does not read."""

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
