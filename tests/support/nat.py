"""A NAT between a client and a server, on one machine: it can be listened to, changed and cut."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription

from lab.sound.tones import Ear, tone
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.sessions.session import Session
from rtc_server.webrtc.ice_agent import IceConnection
from rtc_server.webrtc.transceivers import LeanPeerConnection
from tests.webrtc.test_ice import here

Address = tuple[str, int]


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def agent_of(client: VoiceClient) -> IceConnection:
    (agent,) = client.pc._ice_connections()
    return agent


def peer_of(call: Session) -> LeanPeerConnection:
    """The server's end of a call by WebRTC."""
    transport: Any = call.presence.transport
    assert isinstance(transport._peer._pc, LeanPeerConnection)
    return transport._peer._pc


def agents_of(server: Server) -> list[IceConnection]:
    return [
        agent
        for call in server.registry
        if call.presence.transport is not None
        for agent in peer_of(call)._ice_connections()
    ]


class Nat:
    """Stands before a client: what it sends leaves by a port of the NAT's own, which can change, as they do when one is
    restarted or was idle for too long. Give the client an answer that :meth:`rewrite` has made.

    ``heard``: the last datagrams of the client. ``blocked``: nothing gets through, either way; ``one_way``: nothing to
    the client.
    """

    def __init__(self, host: str) -> None:
        self.heard: list[bytes] = []
        self.blocked = False
        self.one_way = False
        self._host = host
        self._client: Address | None = None
        self._server: Address | None = None
        self._inside: asyncio.DatagramTransport | None = None
        self._outside: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Nat:
        self._inside = await self._open(self._from_client)
        await self.rebind()
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in (self._inside, self._outside):
            assert transport is not None
            transport.close()

    async def rebind(self) -> None:
        """From now on packets leave by another port, and none comes in by the old one."""
        before, self._outside = self._outside, await self._open(self._from_server)
        if before is not None:
            before.close()

    @property
    def outside(self) -> Address:
        """What the server sees."""
        assert self._outside is not None
        return self._outside.get_extra_info("sockname")  # type: ignore[no-any-return]

    @property
    def server(self) -> Address:
        assert self._server is not None
        return self._server

    def rewrite(self, answer: str) -> str:
        """The same answer with the NAT's own address in place of the server's."""
        assert self._inside is not None
        host, port = self._inside.get_extra_info("sockname")
        candidate = re.compile(r"(a=candidate:\S+ 1 udp \d+ )(\S+) (\d+)( typ host)")
        found = next(each for each in candidate.finditer(answer) if each[2] == self._host)
        self._server = (found[2], int(found[3]))
        kept = [line for line in answer.splitlines() if not line.startswith("a=candidate") or f" {self._host} " in line]
        return candidate.sub(rf"\g<1>{host} {port}\g<4>", "\r\n".join(kept)) + "\r\n"

    @contextlib.asynccontextmanager
    async def call(self, url: str, pc: RTCPeerConnection) -> AsyncIterator[None]:
        """A bare peer connection in conversation with a server, through this NAT and no other way."""
        try:
            await pc.setLocalDescription(await pc.createOffer())
            body = {"sdp": without_candidates(pc.localDescription.sdp), "type": "offer"}
            async with aiohttp.ClientSession() as http, http.post(f"{url}/api/offer", json=body) as response:
                answer = await response.json()
            await pc.setRemoteDescription(RTCSessionDescription(self.rewrite(answer["sdp"]), "answer"))
            yield
        finally:
            await pc.close()

    def put_before(self, client: VoiceClient) -> None:
        """The same for a client that has not connected yet."""
        take, post = client.pc.setRemoteDescription, client._post

        async def set_remote(description: RTCSessionDescription) -> None:
            await take(RTCSessionDescription(self.rewrite(description.sdp), description.type))

        async def post_bare(http: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
            return await post(http, {**body, "sdp": without_candidates(body["sdp"])})

        client.pc.setRemoteDescription = set_remote  # type: ignore[method-assign]
        client._post = post_bare  # type: ignore[method-assign]

    def _from_client(self, data: bytes, source: Address) -> None:
        self._client = source
        self.heard = [*self.heard[-400:], data]
        if not self.blocked and self._outside is not None:
            self._outside.sendto(data, self.server)

    def _from_server(self, data: bytes, source: Address) -> None:
        if source == self._server and not self.blocked and not self.one_way and self._client and self._inside:
            self._inside.sendto(data, self._client)

    async def _open(self, received: Any) -> asyncio.DatagramTransport:
        class Side(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                received(data, addr)

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Side, local_addr=(self._host, 0))
        return transport


def without_candidates(sdp: str) -> str:
    return "\r\n".join(line for line in sdp.splitlines() if not line.startswith("a=candidate")) + "\r\n"


@contextlib.asynccontextmanager
async def call_through_nat(server: Server, ear: Ear) -> AsyncIterator[tuple[VoiceClient, Nat]]:
    async with Nat(here()) as nat:
        client = VoiceClient(url_of(server), tone(440), on_voice=ear)
        nat.put_before(client)
        async with client:
            await client.wait_for("connected")
            await ear.until_voice()
            yield client, nat
