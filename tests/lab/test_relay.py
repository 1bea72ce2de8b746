"""The relay: two sockets that each take it for the other, with the link in between."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from lab.network.link import LinkSettings
from lab.network.profiles import PROFILES, Profile
from lab.network.proxy import proxied
from lab.network.relay import Relay, is_rtp
from lab.network.sdp import candidates

RTP = bytes([0x80, 96]) + bytes(20)


class End(asyncio.DatagramProtocol):
    """A peer's socket; what it got, in a queue."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes] = asyncio.Queue()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port: int = self.transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self.got.put_nowait(data)

    def description(self) -> str:
        return f"v=0\r\nm=audio 9 x 96\r\na=candidate:a 1 udp 1 127.0.0.1 {self.port} typ host\r\n"


async def received(end: End) -> bytes:
    return await asyncio.wait_for(end.got.get(), 5)


async def test_both_peers_find_each_other_through_the_relay() -> None:
    """What the server says first waits for the client; then both ways, each to the right one."""
    client, server = End(), End()
    await client.open()
    await server.open()
    try:
        async with Relay(PROFILES["clean"], host="127.0.0.1") as relay:
            assert candidates(relay.rewrite_offer(client.description())) == [("127.0.0.1", relay.port)]
            server.transport.sendto(b"early", ("127.0.0.1", relay.port))
            await asyncio.sleep(0)
            assert candidates(relay.rewrite(server.description())) == [("127.0.0.1", relay.port)]
            client.transport.sendto(b"up", ("127.0.0.1", relay.port))
            assert await received(server) == b"up"
            assert await received(client) == b"early"
            server.transport.sendto(b"down", ("127.0.0.1", relay.port))
            assert await received(client) == b"down"
            relay.up.drop_next(1)
            for data in (RTP + b"lost", b"not media", RTP + b"kept"):
                client.transport.sendto(data, ("127.0.0.1", relay.port))
            assert [await received(server), await received(server)] == [b"not media", RTP + b"kept"]
            nothing = LinkSettings(loss=1.0)
            relay.apply(Profile("dead", nothing, LinkSettings()))
            client.transport.sendto(b"lost", ("127.0.0.1", relay.port))
            server.transport.sendto(b"still down", ("127.0.0.1", relay.port))
            assert await received(client) == b"still down"
            assert server.got.empty()
    finally:
        client.transport.close()
        server.transport.close()


async def test_an_answer_without_an_address_is_refused() -> None:
    """There is nothing to stand in for."""
    async with Relay(PROFILES["clean"], host="127.0.0.1") as relay:
        with pytest.raises(ValueError, match="candidate"):
            relay.rewrite("v=0\r\nm=audio 9 x 96\r\n")


def test_media_is_told_from_the_rest() -> None:
    """RTP by its first byte and payload type; RTCP, STUN and DTLS are not."""
    assert is_rtp(RTP)
    assert is_rtp(bytes([0x90, 0x80 | 111]) + bytes(20))
    for first, second in ((0x80, 200), (0x81, 201), (0x00, 0x01), (22, 254)):
        assert not is_rtp(bytes([first, second]) + bytes(20))
    assert not is_rtp(RTP[:8])


def test_the_profiles_are_those_of_the_goals() -> None:
    """Round trip in ms, loss in each direction."""
    figures = {name: (p.up.delay_ms + p.down.delay_ms, p.up.loss, p.down.loss) for name, p in PROFILES.items()}
    assert figures["clean"] == (0, 0, 0)
    assert figures["wifi"] == (40, 0.002, 0.002)
    assert figures["lossy-wifi"] == (40, 0.05, 0.05)
    assert figures["3g"] == (250, 0.015, 0.015)
    assert figures["poor-4g"] == (350, 0.05, 0.05)
    assert figures["bad-4g"][1:] == (0.2, 0.2)


async def test_the_proxy_puts_a_relay_into_each_call_and_passes_the_rest_through() -> None:
    """Offers and answers are rewritten; errors, other paths and what is no offer reach the client unchanged."""
    server_side = End()
    offers: list[dict[str, str]] = []

    async def offer(request: web.Request) -> web.Response:
        body = await request.json()
        if "sdp" not in body:
            return web.json_response({"error": "no sdp"}, status=400)
        offers.append(body)
        return web.json_response({"sdp": server_side.description(), "type": "answer", "session": "s"}, status=201)

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=request.rel_url.raw_query_string, headers={"X-Mark": "kept"})

    app = web.Application()
    app.router.add_post("/api/offer", offer)
    app.router.add_get("/page", page)
    server_side.port = 4444
    async with TestServer(app) as server, proxied(str(server.make_url("")), PROFILES["wifi"]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        async with ClientSession() as http:
            body = {"sdp": "v=0\r\nm=audio 9 x 96\r\na=candidate:a 1 udp 1 10.1.2.3 7 typ host\r\n", "type": "offer"}
            async with http.post(f"{url}/api/offer", json=body) as response:
                answer = await response.json()
                assert response.status == 201
            (relay,) = proxy.relays
            assert [port for _, port in candidates(answer["sdp"])] == [relay.port]
            assert [port for _, port in candidates(offers[0]["sdp"])] == [relay.port]
            assert answer["session"] == "s"
            async with http.post(f"{url}/api/offer", json={}) as response:
                assert response.status == 400
                assert await response.json() == {"error": "no sdp"}
            async with http.get(f"{url}/page?a=b%20c") as response:
                assert await response.text() == "a=b%20c"
                assert response.headers["X-Mark"] == "kept"
            assert proxy.relays == [relay]
