"""An HTTP proxy in front of a server, which gives every call through it a network of its own (``relay.py``).

It rewrites the descriptions of every offer and its answer, and passes everything else through: a browser is led over a
bad network without knowing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from lab.network.profiles import Profile
from lab.network.relay import Relay

_IDLE_S: Final = 60.0
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "date"}
)
"""``Host`` is passed on, as a reverse proxy should: the server knows its own pages by it."""


class Proxy:
    """An HTTP server in front of another one: each call through it has a network of its own."""

    def __init__(self, server: str, profile: Profile, seed: int = 0, host: str | None = None) -> None:
        self.profile = profile
        self.relays: list[Relay] = []
        self._server = server.rstrip("/")
        self._seed = seed
        self._host = host
        self._http: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen. Raises OSError."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._http = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        for relay in self.relays:
            relay.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._http is not None:
            await self._http.close()

    def apply(self, profile: Profile) -> None:
        """Another network from now on, for the calls that run and for those to come."""
        self.profile = profile
        for relay in self.relays:
            relay.apply(profile)

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.method == "PATCH":
            # Candidates that follow the offer would be a way around the relay; there is none.
            return web.Response(status=204)
        is_offer = request.method == "POST" and request.path.endswith("/offer") and _has_sdp(body)
        relay = await self._new_relay() if is_offer else None
        try:
            return await self._forward(request, body, relay)
        except (aiohttp.ClientError, ValueError) as error:
            if relay is not None:
                relay.close()
            return web.Response(status=502, text=f"{type(error).__name__}: is the server running?\n")

    async def _forward(self, request: web.Request, body: bytes, relay: Relay | None) -> web.Response:
        assert self._http is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        if relay is not None:
            body = _with_sdp(body, relay.rewrite_offer)
        url = URL(self._server + request.raw_path, encoded=True)
        async with self._http.request(
            request.method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            answer = await response.read()
            if relay is not None:
                if response.ok:
                    answer = _with_sdp(answer, relay.rewrite)
                else:
                    relay.close()
            kept = [(name, value) for name, value in response.headers.items() if name.lower() not in _HOP_BY_HOP]
            return web.Response(status=response.status, body=answer, headers=kept)

    async def _new_relay(self) -> Relay:
        now = asyncio.get_running_loop().time()
        for relay in self.relays:
            if now - relay.last_packet_at > _IDLE_S:
                relay.close()
        self.relays = [relay for relay in self.relays if now - relay.last_packet_at <= _IDLE_S]
        relay = Relay(self.profile, self._seed + len(self.relays), self._host)
        await relay.open()
        self.relays.append(relay)
        return relay


def _has_sdp(body: bytes) -> bool:
    """What has not is the server's to refuse."""
    try:
        message = json.loads(body)
    except ValueError:
        return False
    return isinstance(message, dict) and isinstance(message.get("sdp"), str)


def _with_sdp(body: bytes, change: Callable[[str], str]) -> bytes:
    message = json.loads(body)
    return json.dumps({**message, "sdp": change(message["sdp"])}).encode()


@contextlib.asynccontextmanager
async def proxied(server: str, profile: Profile, seed: int = 0) -> AsyncIterator[Proxy]:
    """A proxy on a free port of the loopback interface."""
    proxy = Proxy(server, profile, seed)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
