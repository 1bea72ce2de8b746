"""Answers typed errors over HTTP: as JSON, as problem details (RFC 9457) for WHIP and WHEP, and in OpenAI's envelope
under ``/v1``.

Also what other people's failures are to us: those of aiohttp's router and of its request bodies.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web

from rtc_server.errors import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    ServerError,
    TooLarge,
    TooManyConnections,
    Unauthorized,
)
from rtc_server.protocols.openai.errors import error_body
from rtc_server.system.descriptors import is_shortage

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_RETRY_AFTER_S: Final = 60
_PROBLEM_DOORS: Final = frozenset({"whip", "whep"})
_OPENAI_DOOR: Final = "v1"
_ERRORS_FROM: Final = 400


def error_response(error: ServerError, request: web.BaseRequest) -> web.Response:
    """Any typed error as the answer to this request."""
    headers = {"Cache-Control": "no-store"}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(min(error.retry_after_s, MAX_RETRY_AFTER_S))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if _door(request) in _PROBLEM_DOORS:
        response = web.json_response(
            _problem(error), status=error.http_status, headers=headers, content_type="application/problem+json"
        )
    elif _door(request) == _OPENAI_DOOR:
        response = web.json_response({"error": error_body(error)}, status=error.http_status, headers=headers)
    else:
        response = web.json_response({"error": error.as_dict()}, status=error.http_status, headers=headers)
    if isinstance(error, RequestTimeout):
        response.force_close()
    return response


def _problem(error: ServerError) -> dict[str, str | int | bool]:
    return {
        "type": "about:blank",
        # RFC 9457, section 4.2.1: "the title SHOULD be the same as the recommended HTTP status phrase for that code".
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "retryable": error.retryable,
    }


def _door(request: web.BaseRequest) -> str:
    """The first part of the path: what may be known of a request without knowing whose it is."""
    return request.rel_url.path.split("/")[1:2][0] if "/" in request.rel_url.path else ""


@web.middleware
async def errors_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as our own kind of answer; a peer never sees the text of a foreign exception."""
    try:
        return await handler(request)
    except ServerError as error:
        return error_response(error, request)
    except web.HTTPException as error:
        if error.status < _ERRORS_FROM:  # redirects and the like are not errors
            raise
        response = error_response(_typed(error, request), request)
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except OSError as error:
        if not is_shortage(error):
            logger.exception("%s /%s failed", request.method, _door(request))
            return error_response(InternalError(), request)
        # Strangers can bring it about, and often: no line each.
        logger.debug("%s /%s: no file descriptor left", request.method, _door(request))
        return error_response(TooManyConnections(), request)
    except Exception:  # the border of a request: the fault is ours, is logged, and costs this request alone
        logger.exception("%s /%s failed", request.method, _door(request))
        return error_response(InternalError(), request)


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
