"""One call's network, on one machine: a UDP relay that both peers take for each other, and as bad as it is told.

One for each call::

    async with Relay(PROFILES["lossy-wifi"]) as relay:
        offer = relay.rewrite_offer(offer)    # the server shall not find another way to the client
        answer = relay.rewrite(answer)        # the client finds the relay where it looks for the server

The network itself is in ``link.py``; this module owns sockets and timers, and decides nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Self

from aioice.ice import get_host_addresses

from lab.network import sdp
from lab.network.link import Link
from lab.network.profiles import Profile

Address = tuple[str, int]

_HELD_PACKETS: Final = 32


class Relay(asyncio.DatagramProtocol, sdp.Rewriter):
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
