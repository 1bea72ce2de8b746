"""Requests about a room that another media process has, on this machine or on another: they go there, and its answer
comes back.

Where a room is, and where that process is, this is told. What goes to another machine is signed with a secret that the
servers share, so that it is counted by the address of the client there, as one that has been let in already.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import web

from rtc_server.errors import RoomsPaused, ServerFull
from rtc_server.web.passing import FORWARDED_FOR, client_by, pass_on
from rtc_server.web.routes import Handler, policy_of
from rtc_server.web.siblings import Siblings, came_from_sibling

logger = logging.getLogger(__name__)

_HEADER: Final = "Neighbour"
_VALID_S: Final = 60
"""A signature, and how far the clocks of two machines may be from each other."""


class Signatures:
    """``secret``: the one that the servers share as of now; empty while it is not known."""

    def __init__(self, secret: Callable[[], bytes], today: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._today = today

    def made(self, request: web.Request, address: str) -> dict[str, str]:
        """The header for a request that goes on, of a client with this address."""
        at = str(int(self._today()))
        return {_HEADER: f"{at}.{self._of(request, address, at)}"}

    def signed(self, request: web.Request) -> bool:
        """Whether another server passes the request on."""
        at, _, given = request.headers.get(_HEADER, "").partition(".")
        if not given or not self._secret() or not at.isascii() or not at.isdigit() or len(at) > 12:  # noqa: PLR2004
            return False
        if abs(self._today() - int(at)) > _VALID_S or not given.isascii():
            return False
        return hmac.compare_digest(given, self._of(request, request.headers.get(FORWARDED_FOR, ""), at))

    def _of(self, request: web.Request, address: str, at: str) -> str:
        said = "\n".join((at, request.method, request.rel_url.raw_path_qs, address))
        return hmac.digest(self._secret(), said.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


class Neighbours:
    """``process``: this one, ``NODE-WORKER``. ``home_of``: the process that has a room, None for this one.
    ``url_of``: where a process on another machine is. ``address_of``: by which a request is counted."""

    def __init__(
        self,
        process: str,
        home_of: Callable[[str], Awaitable[str | None]],
        url_of: Callable[[str], str | None],
        signatures: Signatures,
        address_of: Callable[[web.Request], str],
        siblings: Siblings | None = None,
    ) -> None:
        self.signatures = signatures
        self._node = process.rpartition("-")[0]
        self._home_of = home_of
        self._url_of = url_of
        self._address_of = address_of
        self._siblings = siblings
        self._client: aiohttp.ClientSession | None = None

    @web.middleware
    async def forward(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on what is another's, by what the matched route says of its room."""
        policy, answer = policy_of(request), None
        if policy.room is not None:
            answer = await self.pass_on(request, request.match_info.get(policy.room, ""))
        return await handler(request) if answer is None else answer

    async def pass_on(self, request: web.Request, room: str) -> web.StreamResponse | None:
        """The answer of the process that has the room; None if this one has it, or none has. Raises RoomsPaused if
        that process does not answer: it will, or the room will be another's."""
        process = await self._home_of(room)
        if process is None:
            return None
        node, _, worker = process.rpartition("-")
        answer = None
        if node == self._node:
            if self._siblings is not None and worker.isdecimal() and not came_from_sibling(request):
                answer = await self._siblings.pass_to(request, int(worker))
        elif not came_from_sibling(request) and not self.signatures.signed(request):
            answer = await self._pass_far(request, process)
        if answer is None:
            raise RoomsPaused
        return answer

    async def close(self) -> None:
        """Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _pass_far(self, request: web.Request, process: str) -> web.StreamResponse | None:
        url = self._url_of(process)
        if url is None:
            return None
        if self._client is None:
            self._client = client_by(aiohttp.TCPConnector(limit=0))
        address = self._address_of(request)
        try:
            return await pass_on(request, self._client, url, address, more=self.signatures.made(request, address))
        except aiohttp.WSServerHandshakeError as refused:
            raise (ServerFull if refused.status == ServerFull.http_status else RoomsPaused) from None
        except aiohttp.ClientError:
            logger.info("the home of a room does not answer")
        return None


NEIGHBOURS: Final = web.AppKey("neighbours", Neighbours)
"""Of an application whose rooms may be on other machines."""
