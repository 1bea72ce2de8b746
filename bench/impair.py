"""A bad network: a UDP relay between a client and a server, on one machine.

From Python, one relay for each call::

    async with Relay(PROFILES["lossy-wifi"]) as relay:
        offer = relay.rewrite_offer(offer)    # the server shall not find another way to the client
        answer = relay.rewrite(answer)        # the client finds the relay where it looks for the server

For a browser, an HTTP proxy in front of the server that does this to every ``POST /api/offer`` and passes
everything else through::

    python -m bench.impair --server http://localhost:8080 --profile lossy-wifi --port 9090

The network itself is in ``link.py``; this module owns sockets and timers, and decides nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Self

import aiohttp
from aiohttp import web
from aioice.ice import get_host_addresses
from yarl import URL

from bench import sdp
from bench.link import Link, LinkSettings, Outage
from bench.profiles import PROFILES, Profile
from bench.rtp_client import Rewriter

Address = tuple[str, int]

_HELD_PACKETS: Final = 32
_IDLE_S: Final = 60.0
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length", "date"}
)
"""``Host`` is passed on, as a reverse proxy should: the server knows its own pages by it."""


class Relay(asyncio.DatagramProtocol, Rewriter):
    """One call's network: one UDP port that both peers take for the other. Use as an asynchronous context manager.

    ``host``: the address that stands in the rewritten descriptions; the machine's first that is not loopback,
    which is also what WebRTC stacks put into their candidates.
    """

    def __init__(self, profile: Profile, seed: int = 0, host: str | None = None) -> None:
        self._profile = profile
        self._seed = seed
        self._host = host or (get_host_addresses(use_ipv4=True, use_ipv6=False) or ["127.0.0.1"])[0]
        self._transport: asyncio.DatagramTransport | None = None
        self._servers: list[Address] = []
        self._server: Address | None = None
        self._client: Address | None = None
        self._answered = False
        self._held: deque[bytes] = deque(maxlen=_HELD_PACKETS)
        self.last_packet_at = 0.0
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def open(self) -> None:
        """Take a port. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.up = Link(self._profile.up, f"{self._seed}/up", now)
        self.down = Link(self._profile.down, f"{self._seed}/down", now)
        self.last_packet_at = now
        self._transport, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=(self._host, 0))
        self.port = self._transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        """Idempotent."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def apply(self, profile: Profile) -> None:
        """Another network from now on, in mid-call."""
        now = self._loop.time()
        self.up.apply(profile.up, now)
        self.down.apply(profile.down, now)

    def rewrite_offer(self, text: str) -> str:
        """The offer for the server: its candidates are this relay's port."""
        return sdp.with_only_candidate(text, self._host, self.port)

    def rewrite(self, text: str) -> str:
        """The answer for the client: its candidates are this relay's port. Raises ValueError if it has none."""
        self._servers = [address for address in sdp.candidates(text) if _is_ipv4(address[0])]
        if not self._servers:
            raise ValueError("the answer has no IPv4 UDP candidate to stand in for")
        if self._server not in self._servers:
            self._server = next((address for address in self._servers if address[0] == self._host), self._servers[0])
        self._answered = True
        return sdp.with_only_candidate(text, self._host, self.port)

    def datagram_received(self, data: bytes, source: Address) -> None:
        now = self.last_packet_at = self._loop.time()
        if source in self._servers or not self._answered:
            # Only the server knows of this port before the answer is out.
            self._server = source
            self._down(data, now)
            return
        self._client = source
        while self._held:
            self._down(self._held.popleft(), now)
        self._pass_on(self.up, data, now, self._server)

    def error_received(self, exc: Exception) -> None:
        """A peer has closed its socket. That is its business."""

    def _down(self, data: bytes, now: float) -> None:
        # The client is known by its first packet (a browser hides its addresses behind mDNS names). What the
        # server sends before that is for a client that has no answer yet, and would be lost on it.
        if self._client is None:
            self._held.append(data)
        else:
            self._pass_on(self.down, data, now, self._client)

    def _pass_on(self, link: Link, data: bytes, now: float, target: Address | None) -> None:
        for at in link.send(now, len(data), droppable=is_rtp(data)):
            if at <= now:
                self._deliver(data, target)
            else:
                self._loop.call_at(at, self._deliver, data, target)

    def _deliver(self, data: bytes, target: Address | None) -> None:
        if self._transport is not None and target is not None:
            self._transport.sendto(data, target)


def is_rtp(data: bytes) -> bool:
    """Whether a datagram of a WebRTC call is media: RFC 7983 tells RTP and RTCP from STUN and DTLS by the first
    byte, RFC 5761 section 4 tells them apart by the payload type."""
    return len(data) >= 12 and 128 <= data[0] <= 191 and not 64 <= data[1] & 0x7F <= 95


def _is_ipv4(host: str) -> bool:
    return host.count(".") == 3 and host.replace(".", "").isdigit()


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


def changed(settings: LinkSettings, changes: list[str]) -> LinkSettings:
    """``settings`` with ``name=value`` pairs applied; an outage is ``outage=START+LENGTH`` or, to repeat,
    ``outage=START+LENGTH/EVERY``, in seconds. Raises ValueError, TypeError for what is no setting."""
    values: dict[str, Any] = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name == "outage":
            window, _, every = value.partition("/")
            start, _, length = window.partition("+")
            outage = Outage(float(start), float(length), float(every or 0))
            values["outages"] = (*values.get("outages", settings.outages), outage)
        elif name == "in_order":
            values[name] = value.lower() in ("1", "true", "yes")
        else:
            values[name] = float(value)
    return dataclasses.replace(settings, **values)


async def _serve(arguments: argparse.Namespace, profile: Profile) -> None:
    proxy = Proxy(arguments.server, profile, arguments.seed, arguments.address)
    await proxy.start(arguments.host, arguments.port)
    print(f"\n  Open http://{arguments.host}:{proxy.port} in a browser and talk.\n")
    print(f"  {profile.describe()}; seed {arguments.seed}. Ctrl-C ends it.\n", flush=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    began = time.monotonic()
    await stop.wait()
    for number, relay in enumerate(proxy.relays):
        print(f"  call {number}: up {relay.up.counts}, down {relay.down.counts}")
    print(f"  {time.monotonic() - began:.0f} s")
    await proxy.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.impair", description=__doc__.partition("\n")[0])
    parser.add_argument("--server", default="http://localhost:8080", help="the server's address (default: %(default)s)")
    parser.add_argument("--profile", choices=PROFILES, default="lossy-wifi", help="default: %(default)s")
    parser.add_argument("--host", default="localhost", help="where to listen for HTTP (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9090, help="default: %(default)s; 0 takes a free one")
    parser.add_argument("--address", help="IPv4 address for the media (default: the machine's first)")
    parser.add_argument("--seed", type=int, default=0, help="of the network's chances (default: %(default)s)")
    names = ", ".join(field.name for field in dataclasses.fields(LinkSettings) if field.name != "outages")
    for way in ("up", "down"):
        parser.add_argument(
            f"--{way}",
            nargs="+",
            default=[],
            metavar="NAME=VALUE",
            help=f"change that way: {names}, outage=START+LENGTH",
        )
    arguments = parser.parse_args()
    profile = PROFILES[arguments.profile]
    try:
        profile = Profile(profile.name, changed(profile.up, arguments.up), changed(profile.down, arguments.down))
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    asyncio.run(_serve(arguments, profile))


if __name__ == "__main__":
    main()
