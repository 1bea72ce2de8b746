"""Errors as OpenAI's clients know them: the envelope of HTTP answers, which is also the heart of an ``error`` event.

Their codes are those that clients look at where there is one; all others are this server's own (``docs/protocol.md``,
section 4).
"""

from __future__ import annotations

from typing import Final

from rtc_server.errors import BadMessage, ServerError

_CODES: Final = {
    "unauthorized": "invalid_api_key",
    "unknown_service": "model_not_found",
    "rate_limited": "rate_limit_exceeded",
}
_TOO_MANY: Final = 429
_OURS: Final = 500


class BadEvent(BadMessage):
    """A client's event that cannot be obeyed. ``event_code``: the code that the client is told; ``param``: the path of
    the value that is wrong; ``event_id``: the client's own, if it gave one."""

    def __init__(self, event_code: str, message: str, param: str | None = None, event_id: str | None = None) -> None:
        self.event_code, self.param, self.event_id = event_code, param, event_id
        super().__init__(message)


def error_body(error: ServerError) -> dict[str, str | None]:
    """``message``, ``type``, ``code`` and ``param``."""
    bad = error if isinstance(error, BadEvent) else None
    return {
        "message": error.message,
        "type": _type_of(error.http_status),
        "code": _CODES.get(error.code, error.code) if bad is None else bad.event_code,
        "param": None if bad is None else bad.param,
    }


def _type_of(http_status: int) -> str:
    if http_status == _TOO_MANY:
        return "rate_limit_error"
    return "invalid_request_error" if http_status < _OURS else "server_error"
