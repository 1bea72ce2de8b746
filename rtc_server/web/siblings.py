"""Requests about a session that another process of the same server has: they go there, and its answer comes back.

A session's id says which process has it. Each of them listens on a Unix socket that only this user can reach, for the
others; what comes by that way was admitted by the one that passes it on, which says what address it came from. Knows
nothing of sessions but the form of their ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict

from rtc_server.errors import EngineUnavailable, ServerFull
from rtc_server.web.routes import Handler, policy_of

logger = logging.getLogger(__name__)

_CONNECT_S: Final = 1.0
_SILENCE_S: Final = 60.0
"""Of an answer that has begun: longer than an event stream's own signs of life."""
_ASK_S: Final = 2.0
_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
)
_OF_THE_SOCKET: Final = frozenset(
    {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol"}
)
_FORWARDED_FOR: Final = "X-Forwarded-For"
_OURS_TO_SAY: Final = _HOP_BY_HOP | {"content-length", _FORWARDED_FOR.lower()}
"""Of a request's headers, those that are not the client's any more."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """One of ``count`` media processes of a server, and the directory in which all of them are found."""

    index: int
    count: int
    directory: Path

    def socket_path(self, index: int) -> str:
        return str(self.directory / f"worker-{index}")


def came_from_sibling(request: web.Request) -> bool:
    """Whether another process of this server passes the request on."""
    if request.transport is None:
        return False
    peer = request.transport.get_extra_info("socket")
    return peer is not None and peer.family == socket.AF_UNIX


def address_from_sibling(request: web.Request) -> str:
    """From which the client came to that process."""
    return request.headers.get(_FORWARDED_FOR, "")


class Siblings:
    """The other processes, as seen from ``place``. ``node``: with which ids of this server's sessions begin.
    ``address_of``: by which a request is counted. ``held``: how many sessions each of the processes has."""

    def __init__(
        self,
        place: WorkerPlace,
        node: str,
        address_of: Callable[[web.Request], str],
        held: Callable[[], Sequence[int]],
    ) -> None:
        self.place = place
        self._address_of = address_of
        self._held = held
        self._node = node
        self._clients: dict[int, aiohttp.ClientSession] = {}

    def owner_of(self, session_id: str) -> int | None:
        """The process that has a session by this id, if it is another one. A door may have put a word and an
        underscore before the id."""
        node, _, rest = session_id.partition("-")
        worker = rest.partition("-")[0]
        ours = node == self._node or node.endswith(f"_{self._node}")
        if not ours or not worker.isdecimal() or len(worker) > len(str(self.place.count)):
            return None
        index = int(worker)
        return index if index < self.place.count and index != self.place.index else None

    @web.middleware
    async def forward(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on what is another's, by what the matched route says of its session."""
        policy, answer = policy_of(request), None
        if policy.session is not None:
            named = request.match_info.get(policy.session) or request.query.get(policy.session, "")
            answer = await self.pass_on(request, named)
        elif policy.spread:
            answer = await self.spread(request)
        return await handler(request) if answer is None else answer

    async def pass_on(self, request: web.Request, session_id: str) -> web.StreamResponse | None:
        """The owner's answer; None if this process is the owner, or has to answer in its place because it is gone."""
        return await self._pass_to(request, self.owner_of(session_id))

    async def spread(self, request: web.Request) -> web.StreamResponse | None:
        """The answer of the process that has the fewest sessions to an offer; None if this one might as well, or has
        to: the other one is not ready, or has no room."""
        held = self._held()
        fewest = min(range(len(held)), key=lambda index: held[index])
        index = fewest if held[fewest] < held[self.place.index] else None
        return await self._pass_to(request, index, unless=EngineUnavailable.http_status)

    async def _pass_to(
        self, request: web.Request, index: int | None, unless: int | None = None
    ) -> web.StreamResponse | None:
        """Its answer; None if it does not answer, or with the status ``unless``."""
        if index is None or came_from_sibling(request):
            return None
        try:
            if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
                return await self._pass_on_socket(request, index)
            return await self._pass_on(request, index, unless)
        except aiohttp.ClientConnectionError:
            logger.info("worker %d is not there", index)
        except aiohttp.WSServerHandshakeError as refused:
            if refused.status == ServerFull.http_status:
                raise ServerFull from None
            # It has no such session: what is said of that here is the same.
        return None

    async def ask(self, request: web.Request) -> dict[int, bytes]:
        """What the others answer to a ``GET`` that this process answers as well: by their numbers, without those that
        do not answer soon."""
        others = [index for index in range(self.place.count) if index != self.place.index]
        answers = await asyncio.gather(*(self._ask(request, index) for index in others))
        return {index: answer for index, answer in zip(others, answers, strict=True) if answer is not None}

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        await asyncio.gather(*(client.close() for client in clients.values()))

    def _client(self, index: int) -> aiohttp.ClientSession:
        if index not in self._clients:
            connector = aiohttp.UnixConnector(self.place.socket_path(index), limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
            self._clients[index] = aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._clients[index]

    async def _pass_on(self, request: web.Request, owner: int, unless: int | None) -> web.StreamResponse | None:
        body = await request.read() or None
        headers = self._headers_of(request)
        url = f"http://worker{request.rel_url.raw_path_qs}"
        async with self._client(owner).request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
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

    async def _pass_on_socket(self, request: web.Request, owner: int) -> web.StreamResponse:
        offered = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
        protocols = [each.strip() for each in offered.split(",") if each.strip()]
        headers = _without(self._headers_of(request), _OF_THE_SOCKET)
        url = f"http://worker{request.rel_url.raw_path_qs}"
        async with self._client(owner).ws_connect(
            url, headers=headers, protocols=protocols, max_msg_size=_MAX_MESSAGE_BYTES, autoping=False
        ) as far:
            near = web.WebSocketResponse(
                protocols=[far.protocol] if far.protocol else (), max_msg_size=_MAX_MESSAGE_BYTES, autoping=False
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

    def _headers_of(self, request: web.Request) -> CIMultiDict[str]:
        """What goes on with a request: all but what is of its connection; and what address it is counted by."""
        headers = _without(request.headers, _OURS_TO_SAY)
        headers[_FORWARDED_FOR] = self._address_of(request)
        return headers

    async def _ask(self, request: web.Request, index: int) -> bytes | None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(_ASK_S):
                url = f"http://worker{request.rel_url.raw_path}"
                async with self._client(index).get(url, headers=self._headers_of(request)) as answer:
                    return await answer.read() if answer.ok else None
        return None


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


SIBLINGS: Final = web.AppKey("siblings", Siblings)
"""Of an application that is one of several."""
