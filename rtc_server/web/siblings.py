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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from rtc_server.errors import EngineUnavailable, ServerFull
from rtc_server.web.passing import FORWARDED_FOR, client_by, headers_of, pass_on
from rtc_server.web.routes import Handler, policy_of

logger = logging.getLogger(__name__)

_ASK_S: Final = 2.0


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
    return request.headers.get(FORWARDED_FOR, "")


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
        self.rooms_elsewhere = False
        """Whether it is not told by a room's id which process has it."""

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
        name = policy.session if self.rooms_elsewhere else policy.session or policy.room
        if name is not None:
            named = request.match_info.get(name) or request.query.get(name, "")
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

    async def pass_to(self, request: web.Request, index: int) -> web.StreamResponse | None:
        """The answer of a process; None if it does not answer."""
        return await self._pass_to(request, index)

    async def _pass_to(
        self, request: web.Request, index: int | None, unless: int | None = None
    ) -> web.StreamResponse | None:
        """Its answer; None if it does not answer, or with the status ``unless``."""
        if index is None or came_from_sibling(request):
            return None
        try:
            return await pass_on(request, self._client(index), "http://worker", self._address_of(request), unless)
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
            self._clients[index] = client_by(aiohttp.UnixConnector(self.place.socket_path(index), limit=0))
        return self._clients[index]

    async def _ask(self, request: web.Request, index: int) -> bytes | None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(_ASK_S):
                url = f"http://worker{request.rel_url.raw_path}"
                async with self._client(index).get(
                    url, headers=headers_of(request, self._address_of(request))
                ) as answer:
                    return await answer.read() if answer.ok else None
        return None


SIBLINGS: Final = web.AppKey("siblings", Siblings)
"""Of an application that is one of several."""
