"""The middleware that makes answers of errors, in the envelope that the matched route declares.

Also what other people's failures are to us: those of aiohttp's router and of its request bodies.
"""

from __future__ import annotations

import logging
from typing import Final

from aiohttp import web

from rtc_server.errors import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotFound,
    ServerError,
    TooLarge,
    TooManyConnections,
)
from rtc_server.system.descriptors import is_shortage
from rtc_server.web.envelopes import error_response
from rtc_server.web.routes import Handler, envelope_of, pattern_of

logger = logging.getLogger(__name__)

_ERRORS_FROM: Final = 400


@web.middleware
async def errors_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as our own kind of answer; a peer never sees the text of a foreign exception."""
    try:
        return await handler(request)
    except ServerError as error:
        return error_response(error, envelope_of(request))
    except web.HTTPException as error:
        if error.status < _ERRORS_FROM:  # redirects and the like are not errors
            raise
        response = error_response(_typed(error, request), envelope_of(request))
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except OSError as error:
        if not is_shortage(error):
            return _fault(request, error)
        # Strangers can bring it about, and often: no line each.
        logger.debug("%s %s: no file descriptor left", request.method, pattern_of(request))
        return error_response(TooManyConnections(), envelope_of(request))
    except Exception as error:  # the border of a request: the fault is ours, is logged, and costs this request alone
        return _fault(request, error)


def _fault(request: web.Request, error: Exception) -> web.Response:
    """The answer to a request whose handler raised what it should not; the log gets the traceback, and no path."""
    logger.error("%s %s failed", request.method, pattern_of(request), exc_info=error)
    return error_response(InternalError(), envelope_of(request))


def _typed(error: web.HTTPException, request: web.Request) -> ServerError:
    match error:
        case web.HTTPRequestEntityTooLarge():
            return TooLarge(request.client_max_size)
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed()
        case web.HTTPNotFound():
            return NotFound()
        case _:
            return BadRequest()
