"""Requests about a session that a process on another machine has, and about a room that another one has, on this
machine or on another: they go there, and its answer comes back.

Where a session is, its id says; where a room is, and where processes are, this is told. What goes to another machine is
signed with a secret that the servers share, so that it is counted by the address of the client there, as one that has
been let in already.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
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
_OWNER: Final = re.compile(r"(?:[a-z]+_)?([A-Za-z0-9.]{1,64})-(\d{1,4})-[A-Za-z0-9_-]{22}")
"""A session's id, with the word before it that some doors put there."""
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
    """``process``: this one, ``NODE-WORKER``. ``url_of``: where a process on another machine is. ``address_of``: by
    which a request is counted. ``home_of``: the process that has a room, None for this one; without it rooms are this
    server's own."""

    def __init__(
        self,
        process: str,
        url_of: Callable[[str], str | None],
        signatures: Signatures,
        address_of: Callable[[web.Request], str],
        siblings: Siblings | None = None,
        home_of: Callable[[str], Awaitable[str | None]] | None = None,
    ) -> None:
        self.signatures = signatures
        self._node = process.rpartition("-")[0]
        self._home_of = home_of
        self._url_of = url_of
        self._address_of = address_of
        self._siblings = siblings
        self._client: aiohttp.ClientSession | None = None

    @property
    def know_rooms(self) -> bool:
        """Whether rooms may be on other machines."""
        return self._home_of is not None

    @web.middleware
    async def forward(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on what is another's, by what the matched route says of its session or its room."""
        policy, answer = policy_of(request), None
        if policy.room is not None:
            answer = await self.pass_on(request, request.match_info.get(policy.room, ""))
        elif policy.session is not None:
            named = request.match_info.get(policy.session) or request.query.get(policy.session, "")
            answer = await self.pass_to_owner(request, named)
        return await handler(request) if answer is None else answer

    async def pass_to_owner(self, request: web.Request, session_id: str) -> web.StreamResponse | None:
        """The answer of the process on another machine that has a session; None if it does not answer, or is none that
        is known, or on this machine."""
        owner = _OWNER.fullmatch(session_id)
        if owner is None or owner[1] == self._node or came_from_sibling(request) or self.signatures.signed(request):
            return None
        return await self._pass_far(request, f"{owner[1]}-{owner[2]}")

    async def pass_on(self, request: web.Request, room: str) -> web.StreamResponse | None:
        """The answer of the process that has the room; None if this one has it, or none has. Raises RoomsPaused if
        that process does not answer: it will, or the room will be another's."""
        process = None if self._home_of is None else await self._home_of(room)
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
        """The answer of a process on another machine; None if it does not answer, or refuses a WebSocket for another
        reason than that it is full."""
        url = self._url_of(process)
        if url is None:
            return None
        if self._client is None:
            self._client = client_by(aiohttp.TCPConnector(limit=0))
        address = self._address_of(request)
        try:
            return await pass_on(request, self._client, url, address, more=self.signatures.made(request, address))
        except aiohttp.WSServerHandshakeError as refused:
            if refused.status == ServerFull.http_status:
                raise ServerFull from None
        except aiohttp.ClientError:
            logger.info("media process %s does not answer", process)
        return None


NEIGHBOURS: Final = web.AppKey("neighbours", Neighbours)
"""Of an application that knows processes on other machines."""
