"""Passes a request on to another process, and its answer back: of HTTP, and of WebSockets. Knows not which, nor why."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict

FORWARDED_FOR: Final = "X-Forwarded-For"
_CONNECT_S: Final = 1.0
_SILENCE_S: Final = 60.0
"""Of an answer that has begun: longer than an event stream's own signs of life."""
_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
_OF_THE_SOCKET: Final = frozenset(
    {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol"}
)
_OURS_TO_SAY: Final = _HOP_BY_HOP | {"content-length", FORWARDED_FOR.lower()}
"""Of a request's headers, those that are not the client's any more."""


def client_by(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    """What requests are passed on with."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    )


def headers_of(request: web.Request, address: str, more: Mapping[str, str] | None = None) -> CIMultiDict[str]:
    """What goes on with a request: all but what is of its connection; and what ``address`` it is counted by."""
    headers = _without(request.headers, _OURS_TO_SAY)
    headers[FORWARDED_FOR] = address
    headers.update(more or {})
    return headers


async def pass_on(
    request: web.Request,
    client: aiohttp.ClientSession,
    base: str,
    address: str,
    unless: int | None = None,
    more: Mapping[str, str] | None = None,
) -> web.StreamResponse | None:
    """The answer of the process at the URL ``base``; None if it has the status ``unless``. ``address``: of the client.
    ``more``: headers of our own. Raises aiohttp.ClientError for one that does not answer, or refuses a WebSocket."""
    url = base + request.rel_url.raw_path_qs
    headers = headers_of(request, address, more)
    if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
        return await _pass_on_socket(request, client, url, headers)
    body = await request.read() or None
    async with client.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
        if answer.status == unless:
            return None
        response = web.StreamResponse(status=answer.status, headers=_without(answer.headers, _HOP_BY_HOP))
        await response.prepare(request)
        try:
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
        except aiohttp.ClientError:  # it has died while it answered: its client hears of that in the same way
            if request.transport is not None:
                request.transport.abort()
        return response


async def _pass_on_socket(
    request: web.Request, client: aiohttp.ClientSession, url: str, headers: CIMultiDict[str]
) -> web.StreamResponse:
    offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
    protocols = [each.strip() for each in offered.split(",") if each.strip()]
    async with client.ws_connect(
        url,
        headers=_without(headers, _OF_THE_SOCKET),
        protocols=protocols,
        max_msg_size=_MAX_MESSAGE_BYTES,
        autoping=False,
    ) as far:
        near = web.WebSocketResponse(
            protocols=[far.protocol] if far.protocol else (),
            max_msg_size=_MAX_MESSAGE_BYTES,
            autoping=False,
            compress=False,  # as the process behind: audio does not get smaller, and what is sent cannot swell here
        )
        await near.prepare(request)
        ways = [asyncio.create_task(_copy(far, near)), asyncio.create_task(_copy(near, far))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        await near.close(code=far.close_code or aiohttp.WSCloseCode.GOING_AWAY)
        return near


async def _copy(
    source: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
    target: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
) -> None:
    """Messages of one side to the other, until it closes."""
    async for message in source:
        match message.type:
            case aiohttp.WSMsgType.TEXT:
                await target.send_str(message.data)
            case aiohttp.WSMsgType.BINARY:
                await target.send_bytes(message.data)
            case aiohttp.WSMsgType.PING:
                await target.ping(message.data)
            case aiohttp.WSMsgType.PONG:
                await target.pong(message.data)
            case _:
                return
    await target.close(code=source.close_code or aiohttp.WSCloseCode.GOING_AWAY)


def _without(headers: Mapping[str, str], names: Collection[str]) -> CIMultiDict[str]:
    """All headers, those that come twice as well, but for ``names``, in lower case."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in names)
