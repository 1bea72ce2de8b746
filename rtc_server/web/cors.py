"""Pages of other origins: which may ask, what preflights are answered, and what a page may read of its answer."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import hdrs, web

from rtc_server.access.origins import Origins
from rtc_server.errors import OriginRefused
from rtc_server.web.routes import Policy

_CORS_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_CORS_HEADERS: Final = ("Authorization", "Content-Type", "If-Match", "Last-Event-ID")
_MAX_ASKED_HEADERS: Final = 64
_MAX_ASKED_CHARACTERS: Final = 4096
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$%&'+.^_`|~-]{0,127}")
"""RFC 9110, section 5.6.2, but for ``*``, which CORS takes for all headers."""
_CORS_EXPOSED: Final = "Location, ETag, Link, Retry-After"
_CORS_MAX_AGE_S: Final = 7200
"""Chromium keeps a preflight's answer for no longer."""

_CROSS_ORIGIN: Final = web.RequestKey("cross_origin", str)


def check_origin(request: web.Request, origins: Origins) -> None:
    """Raises OriginRefused. An origin that is another's, and may come in, is noted for the answer's headers."""
    named = request.headers.getall(hdrs.ORIGIN, [])
    if not named:
        return
    if len(named) > 1:
        raise OriginRefused
    if origins.is_ours(named[0], request.headers.get(hdrs.HOST, "")):
        return
    if not origins.allows(named[0]):
        raise OriginRefused
    request[_CROSS_ORIGIN] = named[0]


def is_preflight(request: web.Request) -> bool:
    return (
        request.method == hdrs.METH_OPTIONS
        and hdrs.ORIGIN in request.headers
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    )


def preflight_answer(request: web.Request, policy: Policy) -> web.Response:
    headers: dict[str, str] = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: _CORS_METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ", ".join(_headers_for(request)),
        hdrs.VARY: hdrs.ACCESS_CONTROL_REQUEST_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(_CORS_MAX_AGE_S),
    }
    if policy.accept_post is not None:
        headers["Accept-Post"] = policy.accept_post
    return web.Response(status=204, headers=headers)


def _headers_for(request: web.Request) -> list[str]:
    """What a page of an allowed origin may send: what we read, and what it asks for besides. Tracing libraries, error
    reporters and the like add headers to every request of a page, which then cannot make any if one is not named."""
    asked = ",".join(request.headers.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, []))
    if len(asked) > _MAX_ASKED_CHARACTERS:
        return list(_CORS_HEADERS)
    names = {name.lower(): name for name in _CORS_HEADERS}
    for name in asked.split(",")[:_MAX_ASKED_HEADERS]:
        if _HEADER_NAME.fullmatch(name.strip()):
            names.setdefault(name.strip().lower(), name.strip())
    return list(names.values())


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer, errors among them: a page that cannot read why it was refused cannot tell its user.

    ``Vary`` also where no origin is named, or a cache would hand that answer to a page that is then kept from it.
    """
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = request.get(_CROSS_ORIGIN)
    if origin is not None:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _CORS_EXPOSED
