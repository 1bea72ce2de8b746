"""Candidates that follow the offer: ``PATCH /api/sessions/{id}``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from lab.inputs.offers import bare
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.protocols.events import CHANNEL_LABEL
from rtc_server.protocols.trickle import SDPFRAG_TYPE
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.transceivers import LeanPeerConnection
from tests.conftest import running_server
from tests.support.calls import assert_serves, offering
from tests.support.leftovers import leaves_nothing
from tests.support.nat import peer_of

JSON = "application/json"


class Trickler:
    """A client whose offer names no candidate; ``lines`` are those that it has."""

    def __init__(self, url: str, http: aiohttp.ClientSession, pc: RTCPeerConnection) -> None:
        self.url, self.http, self.pc = url, http, pc
        sdp = pc.localDescription.sdp
        self.lines = [line[2:] for line in dict.fromkeys(sdp.splitlines()) if line.startswith("a=candidate:")]
        bare = [line for line in sdp.splitlines() if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
        self.sdp = "\r\n".join(bare) + "\r\n"
        self.ufrag = next(line[12:] for line in bare if line.startswith("a=ice-ufrag:"))
        self.password = next(line[10:] for line in bare if line.startswith("a=ice-pwd:"))

    async def offer(self) -> None:
        async with self.http.post(f"{self.url}/api/offer", json={"sdp": self.sdp, "type": "offer"}) as response:
            assert response.status == 201
            answer = await response.json()
            self.session = urljoin(str(response.url), response.headers["Location"])
            self.etag = response.headers["ETag"]
        self.answer = answer["sdp"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))

    async def patch(self, data: bytes | str, kind: str = SDPFRAG_TYPE, **headers: str) -> tuple[int, str | None]:
        """The status, and the code of the error if it is one. ``If_Match`` is the header If-Match."""
        sent = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.http.patch(self.session, data=data, headers=sent) as response:
            return response.status, (await response.json())["error"]["code"] if response.status >= 400 else None

    def fragment(self, ufrag: str | None = None) -> str:
        """What RFC 8840 makes of the candidates."""
        generation = [f"a=ice-ufrag:{ufrag or self.ufrag}", f"a=ice-pwd:{self.password}"]
        section = ["m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", *(f"a={line}" for line in self.lines)]
        return "\r\n".join([*generation, *section, "a=end-of-candidates", ""])

    def json(self) -> str:
        return json.dumps({"candidates": [{"candidate": line, "sdpMid": "0"} for line in self.lines], "complete": True})

    async def connected(self) -> None:
        await until(lambda: self.pc.connectionState == "connected", "the connection")


@contextlib.asynccontextmanager
async def trickler(url: str) -> AsyncIterator[Trickler]:
    pc = LeanPeerConnection(RTCConfiguration(iceServers=[]))  # one that leaves no task of aioice behind
    pc.addTransceiver("audio")
    pc.createDataChannel(CHANNEL_LABEL)
    try:
        await pc.setLocalDescription(await pc.createOffer())
        async with aiohttp.ClientSession() as http:
            client = Trickler(url, http, pc)
            await client.offer()
            try:
                yield client
            finally:
                await http.delete(client.session)
    finally:
        await pc.close()


@pytest.mark.parametrize("kind", [SDPFRAG_TYPE, JSON])
async def test_candidates_that_come_later_connect(server: Server, base_url: str, kind: str) -> None:
    async with leaves_nothing(server), trickler(base_url) as client:
        headers = {"If_Match": client.etag} if kind == SDPFRAG_TYPE else {}
        assert await client.patch(client.json() if kind == JSON else client.fragment(), kind, **headers) == (204, None)
        await client.connected()
        # Once connected, more of them do no harm.
        assert await client.patch(client.fragment(), If_Match=client.etag) == (204, None)


@pytest.mark.parametrize("bad", ["candidate:1 1 udp 1 host.example.org 5000 typ host", "candidate:what is this"])
@pytest.mark.parametrize("kind", [SDPFRAG_TYPE, JSON])
async def test_a_candidate_of_no_use_costs_itself_alone(server: Server, base_url: str, kind: str, bad: str) -> None:
    async with trickler(base_url) as client:
        client.lines.insert(0, bad)
        body = client.json() if kind == JSON else client.fragment()
        assert await client.patch(body, kind, If_Match=client.etag) == (204, None)
        await client.connected()


@pytest.mark.parametrize("kind", [SDPFRAG_TYPE, JSON])
async def test_a_host_name_alone_is_left_out(base_url: str, kind: str) -> None:
    """A client may have nothing else to name at first (RFC 8839, section 5.1); it is looked up for none."""
    async with trickler(base_url) as client:
        later = list(client.lines)
        client.lines = ["candidate:1 1 udp 1 host.example.org 5000 typ host"]
        body = client.json() if kind == JSON else client.fragment()
        assert await client.patch(body, kind, If_Match=client.etag) == (204, None)
        client.lines = later
        assert await client.patch(client.json(), JSON) == (204, None)
        await client.connected()


async def test_a_section_may_be_named_by_its_number(server: Server, base_url: str) -> None:
    """``sdpMLineIndex`` without ``sdpMid`` (RTCIceCandidateInit), of an offer without a=mid and so without a bundle."""
    pc = LeanPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio")
    pc.createDataChannel(CHANNEL_LABEL)
    await pc.setLocalDescription(await pc.createOffer())
    async with aiohttp.ClientSession() as http:
        client = Trickler(base_url, http, pc)
        of_section = [re.findall(r"a=(candidate:.*)\r\n", part) for part in pc.localDescription.sdp.split("m=")[1:]]
        client.sdp = bare(client.sdp, "mid", "group")
        async with http.post(f"{base_url}/api/offer", json={"sdp": client.sdp, "type": "offer"}) as response:
            answer = await response.json()
            client.session = urljoin(str(response.url), response.headers["Location"])
        named = re.sub(r"(m=audio.*\r\n)", r"\1a=mid:0\r\n", answer["sdp"])
        named = re.sub(r"(m=application.*\r\n)", r"\1a=mid:1\r\n", named)
        await pc.setRemoteDescription(RTCSessionDescription(named, "answer"))
        found = [
            {"candidate": line, "sdpMLineIndex": index} for index, lines in enumerate(of_section) for line in lines
        ]
        assert await client.patch(json.dumps({"candidates": found}), JSON) == (204, None)
        await client.connected()
        await http.delete(client.session)
    await pc.close()


async def test_an_answer_says_that_candidates_may_follow_and_rtcp_has_no_port(server: Server, base_url: str) -> None:
    async with trickler(base_url) as client:
        lines = client.answer.splitlines()
        assert lines.count("a=ice-options:trickle") == 1
        assert lines.index("a=ice-options:trickle") < lines.index(next(x for x in lines if x.startswith("m=")))
        assert "a=rtcp-mux" in lines
        assert "a=rtcp-mux-only" not in lines  # RFC 8858, section 4.3
        assert any(line.startswith("a=group:BUNDLE ") for line in lines)


async def test_what_if_match_must_say(server: Server, base_url: str) -> None:
    async with trickler(base_url) as client:
        assert client.etag.startswith('"')  # strong
        assert await client.patch(client.fragment()) == (428, "precondition_required")
        assert await client.patch(client.fragment(), If_Match='"other"') == (412, "precondition_failed")
        assert await client.patch(client.fragment(), If_Match=f"W/{client.etag}") == (412, "precondition_failed")
        assert await client.patch(client.json(), JSON, If_Match='"other"') == (412, "precondition_failed")
        assert await client.patch(client.fragment(), If_Match=f'"other", {client.etag}') == (204, None)
        await client.connected()


async def test_a_restart_is_refused_and_the_session_lives_on(server: Server, base_url: str) -> None:
    async with trickler(base_url) as client:
        await client.patch(client.fragment(), If_Match=client.etag)
        await client.connected()
        for etag in (client.etag, "*"):
            assert await client.patch(client.fragment("newfrag1"), If_Match=etag) == (422, "ice_restart_unsupported")
        assert client.pc.connectionState == "connected"
        async with client.http.get(client.session) as response:
            assert (await response.json())["state"] in ("listening", "speaking")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (SDPFRAG_TYPE, ""),
        (SDPFRAG_TYPE, "not a fragment"),
        (SDPFRAG_TYPE, "a=mid:0\r\na=candidate:1 1 udp\r\n"),
        (SDPFRAG_TYPE, b"\xff\xff"),
        (JSON, "{"),
        (JSON, '{"candidates": [{"candidate": "candidate:1 1 udp 1 192.0.2 1 typ host"}]}'),
        (JSON, '{"candidates": 1}'),
    ],
)
async def test_malformed_fragments(server: Server, base_url: str, kind: str, data: Any) -> None:
    async with trickler(base_url) as client:
        assert await client.patch(data, kind, If_Match=client.etag) == (400, "bad_candidate")
        assert await client.patch(client.json(), JSON) == (204, None)
        await client.connected()


async def test_other_types_and_sizes(server: Server, base_url: str) -> None:
    async with trickler(base_url) as client:
        assert await client.patch(client.json(), "text/plain") == (415, "unsupported_media_type")
        assert await client.patch("a=x\r\n" * 20_000, If_Match=client.etag) == (413, "too_large")


async def test_candidates_that_point_elsewhere_cost_little(server: Server, base_url: str) -> None:
    """Sixty-four are taken and no more; loopback, multicast and the like are not; who sent them can still connect
    when the right one was among the first."""
    elsewhere = [f"candidate:{n} 1 udp 1 198.51.100.{n % 250 + 1} {n + 1000} typ host" for n in range(500)]
    nowhere = {"224.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255"}
    nobody = [f"candidate:9 1 udp 1 {host} 9 typ host" for host in nowhere]
    async with leaves_nothing(server), trickler(base_url) as client:
        client.lines += nobody + elsewhere[:100]
        assert await client.patch(client.fragment(), If_Match=client.etag) == (204, None)
        (call,) = server.registry
        (ice,) = peer_of(call)._ice_connections()
        await client.connected()
        hosts = [candidate.host for candidate in ice.remote_candidates]
        assert len(hosts) <= 64 + 2  # with those that the server has learnt from checks
        assert not nowhere & set(hosts)
        await assert_serves(base_url)


async def test_a_session_that_is_not_there(server: Server, base_url: str) -> None:
    async with trickler(base_url) as client:
        client.session = f"{base_url}/api/sessions/0-0-nobody"
        assert await client.patch(client.fragment(), If_Match=client.etag) == (404, "unknown_session")


async def test_many_fragments_at_once(server: Server, base_url: str) -> None:
    async with leaves_nothing(server), trickler(base_url) as client:
        answers = await asyncio.gather(*(client.patch(client.fragment(), If_Match=client.etag) for _ in range(30)))
        assert set(answers) == {(204, None)}
        await client.connected()


async def test_a_server_on_few_ports_says_when_they_are_taken() -> None:
    host = next(host for host in MediaAddresses().hosts() if ":" not in host)
    async with running_server("--model", "echo", "--udp-ports", "53040", "--interfaces", host) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with (
            leaves_nothing(server),
            trickler(url),
            offering() as body,
            aiohttp.ClientSession() as http,
            http.post(f"{url}/api/offer", json=body) as response,
        ):
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert (await response.json())["error"]["code"] == "no_port"
        async with trickler(url) as client:
            candidates = [line.split() for line in client.answer.splitlines() if line.startswith("a=candidate:")]
            assert {fields[5] for fields in candidates} == {"53040"}
