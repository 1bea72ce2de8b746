"""The forms in which errors are answered over HTTP. Which of them an endpoint speaks, its routes declare
(``web/routes.py``).
"""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import Final

from aiohttp import web

from rtc_server.errors import RequestTimeout, ServerError, Unauthorized
from rtc_server.protocols.openai.errors import error_body

MAX_RETRY_AFTER_S: Final = 60


class Envelope(enum.Enum):
    """The body around an error."""

    JSON = enum.auto()
    """The server's own: ``docs/protocol.md``, section 1."""
    PROBLEM = enum.auto()
    """Problem details (RFC 9457)."""
    OPENAI = enum.auto()


def error_response(error: ServerError, envelope: Envelope) -> web.Response:
    """Answer with a typed error. The connection is closed behind a :class:`RequestTimeout`."""
    match envelope:
        case Envelope.PROBLEM:
            response = web.json_response(_problem(error), content_type="application/problem+json")
        case Envelope.OPENAI:
            response = web.json_response({"error": error_body(error)})
        case Envelope.JSON:
            response = web.json_response({"error": error.as_dict()})
    response.set_status(error.http_status)
    response.headers["Cache-Control"] = "no-store"
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(min(error.retry_after_s, MAX_RETRY_AFTER_S))
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
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
