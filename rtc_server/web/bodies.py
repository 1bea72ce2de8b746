"""The body of a request, whole and within a time, before its handler runs."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, hdrs, web

from rtc_server.errors import BadRequest, RequestTimeout, TooLarge, UnsupportedMediaType
from rtc_server.web.routes import Policy


async def read_body(request: web.Request, policy: Policy, timeout_s: float) -> None:
    """Read it, so that handlers find it in memory: ``await request.read()`` is then immediate.

    Nothing is read that the router has no handler for. Compressed bodies are refused: no client of ours sends any, and
    what they unpack to is a stranger's choice.
    """
    if not request.body_exists or request.method in (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS):
        return
    if request.match_info.http_exception is not None:
        return
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedMediaType("identity", "The body must come without a Content-Encoding.")
    if policy.streams_body:
        return
    limit_bytes = min(policy.max_body_bytes, request.client_max_size)
    if (request.content_length or 0) > limit_bytes:
        raise TooLarge(limit_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            await ask_for_body(request)
            if len(await request.read()) > limit_bytes:
                raise TooLarge(limit_bytes)
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(limit_bytes) from None
    except TimeoutError:
        raise RequestTimeout from None
    except (web.RequestPayloadError, ConnectionError):
        raise BadRequest("The body cannot be read: it breaks off, or is not framed as it says.") from None


async def ask_for_body(request: web.Request) -> None:
    """Tell a client that waits to be let in that it is. Only one of HTTP/1.1 does (RFC 9110, section 10.1.1)."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
