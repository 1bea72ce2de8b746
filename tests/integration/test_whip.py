"""WHIP (RFC 9725) and WHEP: the HTTP of both, and a voice that goes in by one and comes back by the other."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from yarl import URL

from lab.network.vanishing import blackhole
from lab.sound.tones import Ear, ends_in_tone, tone
from lab.waiting import until
from lab.whip import SDP, posted
from rtc_server.app import Server
from rtc_server.client import MicrophoneTrack
from rtc_server.media.opus import OpusEncoder, make_encoder
from rtc_server.protocols.trickle import SDPFRAG_TYPE
from rtc_server.sessions.listeners import MAX_LISTENERS
from rtc_server.webrtc import gateway
from rtc_server.webrtc.ice_agent import IceConnection, MediaSocket
from rtc_server.webrtc.transceivers import LeanPeerConnection
from tests.conftest import running_server
from tests.support.calls import assert_serves, listen
from tests.support.leftovers import leaves_nothing


def publisher(hz: float) -> RTCPeerConnection:
    pc = LeanPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver(MicrophoneTrack(tone(hz)), direction="sendonly")
    return pc


def player(ear: Ear) -> RTCPeerConnection:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio", direction="recvonly")
    listening: list[asyncio.Task[None]] = []  # ends with the track
    pc.on("track", lambda track: listening.append(asyncio.create_task(listen(track, ear))))
    return pc


async def problem(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Status and code; that it is a problem document is checked here."""
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = await response.json(content_type=None)
    assert body["status"] == response.status
    assert body["title"]
    assert body["detail"]
    return response.status, body["code"]


async def test_what_is_published_is_played(server: Server, base_url: str) -> None:
    """A tone goes in by WHIP; two listeners hear it by WHEP; one leaves and the other hears on."""
    one, other = Ear(), Ear()
    async with (
        leaves_nothing(server),
        posted(base_url, "/whip/echo", publisher(440)) as session,
        posted(base_url, f"/whep/{session.id}", player(one)) as first,
        posted(base_url, f"/whep/{session.id}", player(other)),
    ):
        await one.until_voice()
        await other.until_voice()
        await until(lambda: ends_in_tone(one.last(1.0), 440), "a second of the tone")
        assert await first.delete() == 200
        await until(lambda: len(next(iter(server.registry)).listeners) == 1, "one listener to be left")
        await other.hear(1.0)
        await until(lambda: ends_in_tone(other.last(1.0), 440), "a second of the tone")


async def test_however_many_listen_the_voice_is_encoded_once_for_them(
    server: Server, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders: list[OpusEncoder] = []

    def counted(bitrate: int, complexity: int) -> OpusEncoder:
        encoders.append(make_encoder(bitrate, complexity))
        return encoders[-1]

    monkeypatch.setattr(gateway, "make_encoder", counted)
    ears = [Ear() for _ in range(3)]
    async with (
        leaves_nothing(server),
        posted(base_url, "/whip/echo", publisher(440)) as session,
        contextlib.AsyncExitStack() as stack,
    ):
        for ear in ears:
            await stack.enter_async_context(posted(base_url, f"/whep/{session.id}", player(ear)))
            await ear.until_voice()
        for ear in ears:
            await until(lambda ear=ear: ends_in_tone(ear.last(1.0), 440), "a second of the tone")
        assert len(encoders) == 1


async def test_a_session_has_what_the_standard_asks_for(server: Server, base_url: str) -> None:
    async with leaves_nothing(server), posted(base_url, "/whip/echo", publisher(440)) as session:
        assert session.headers["ETag"].startswith('"')
        assert session.headers["Location"] == f"../whip/echo/{session.id}"
        fragment = "a=mid:0\r\na=end-of-candidates\r\n"
        assert await session.patch(fragment) == (428, "precondition_required")
        assert await session.patch(fragment, If_Match='"x"') == (412, "precondition_failed")
        assert await session.patch(fragment, If_Match=session.headers["ETag"]) == (204, None)
        restart = "a=ice-ufrag:abcdefgh\r\na=ice-pwd:abcdefghabcdefghabcdefgh\r\n" + fragment
        assert await session.patch(restart, If_Match="*") == (422, "ice_restart_unsupported")
        assert await session.patch("x", If_Match=session.headers["ETag"]) == (400, "bad_candidate")
        assert await session.patch("{}", "application/json") == (415, "unsupported_media_type")
        assert await session.delete() == 200
        assert await session.delete() == 404


async def test_a_slash_at_the_end_makes_no_difference(server: Server, base_url: str) -> None:
    """Of an endpoint, and of what it has made; not by a redirect, which clients do not follow with a body."""
    ear = Ear()
    async with (
        leaves_nothing(server),
        posted(base_url, "/whip/echo/", publisher(440)) as session,
        posted(base_url, f"/whep/{session.id}/", player(ear)) as listener,
    ):
        await ear.until_voice()
        fragment = "a=mid:0\r\na=end-of-candidates\r\n"
        for resource in (listener, session):
            assert resource.url.endswith(resource.id)
            resource.url += "/"
            assert await resource.patch(fragment, If_Match=resource.headers["ETag"]) == (204, None)
            async with resource.http.options(resource.url) as response:
                assert (response.status, response.headers["Accept-Patch"]) == (204, SDPFRAG_TYPE)
            assert await resource.delete() == 200
            assert await resource.delete() == 404
        async with session.http.put(f"{base_url}/whip/echo/") as response:
            assert (response.status, set(response.headers["Allow"].split(","))) == (405, {"POST", "OPTIONS"})


async def test_the_location_can_be_followed_from_wherever_the_endpoint_is_shown(server: Server, base_url: str) -> None:
    """A proxy may show it under a path of its own; and OBS takes what does not begin with http for a path from the
    root, which curl then cleans of its dots."""
    async with leaves_nothing(server), posted(base_url, "/whip/echo", publisher(440)) as session:
        location = session.headers["Location"]
        for shown, expected in (
            ("https://a.example/whip/echo", "https://a.example/whip/echo/"),
            ("https://a.example/voice/whip/echo", "https://a.example/voice/whip/echo/"),
            ("https://a.example/a/b/whip/echo?x=1", "https://a.example/a/b/whip/echo/"),
            ("https://a.example/anything", "https://a.example/whip/echo/"),
        ):
            assert urljoin(shown, location) == expected + session.id
        async with session.http.delete(URL(f"{base_url}/{location}")) as response:
            assert response.status == 200


async def test_ice_servers_are_linked(tmp_path: Path) -> None:
    """One Link for each URL, with credentials that expire, and none on a preflight."""
    secret = tmp_path / "secret"
    secret.write_text("of the tests")
    urls = "turn:turn.example.org,turns:turn.example.org?transport=tcp"
    arguments = ("--stun-urls", "stun:stun.example.org", "--turn-urls", urls, "--turn-secret-file", str(secret))
    async with (
        running_server("--model", "echo", *arguments) as server,
        posted(f"http://127.0.0.1:{server.port}", "/whip/echo", publisher(440)) as session,
    ):
        links = session.headers.getall("Link")
    assert [link.split(">")[0] for link in links] == [
        "<stun:stun.example.org",
        "<turn:turn.example.org",
        "<turns:turn.example.org?transport=tcp",
    ]
    assert all('rel="ice-server"' in link for link in links)
    assert all("credential=" in link for link in links[1:])


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@pytest.mark.parametrize("path", ["/whip/echo", "/whep/0-0-x"])
async def test_other_methods_are_not_allowed(server: Server, base_url: str, method: str, path: str) -> None:
    async with aiohttp.ClientSession() as http, http.request(method, base_url + path) as response:
        assert response.status == 405


@pytest.mark.parametrize("path", ["/whip/echo", "/whep/0-0-x"])
async def test_an_endpoint_says_what_it_takes(server: Server, base_url: str, path: str) -> None:
    async with aiohttp.ClientSession() as http, http.options(base_url + path) as response:
        assert response.status == 204
        assert response.headers["Accept-Post"] == SDP
        assert "Link" not in response.headers


async def test_what_cannot_be_answered_is_told_as_a_problem(server: Server, base_url: str) -> None:
    video = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n"
    g729 = video.replace("video 9 UDP/TLS/RTP/SAVPF 96", "audio 9 UDP/TLS/RTP/SAVPF 18")
    async with aiohttp.ClientSession() as http:
        for path, kind, data, expected in (
            ("/whip/echo", "application/json", "{}", (415, "unsupported_media_type")),
            ("/whip/echo", SDP, "nonsense", (400, "bad_sdp")),
            ("/whip/echo", SDP, b"\xff", (400, "bad_sdp")),
            ("/whip/echo", SDP, video, (422, "no_audio")),
            ("/whip/echo", SDP, g729, (422, "no_common_codec")),
            ("/whip/nothing", SDP, video, (404, "unknown_service")),
            ("/whip/echo", SDP, "v" * 70_000, (413, "too_large")),
            ("/whep/0-0-nobody", SDP, video, (404, "unknown_session")),
        ):
            async with http.post(base_url + path, data=data, headers={"Content-Type": kind}) as response:
                assert await problem(response) == expected, path
    await assert_serves(base_url)


async def test_a_session_is_not_reached_by_the_name_of_another_service(server: Server, base_url: str) -> None:
    async with posted(base_url, "/whip/echo", publisher(440)) as session:
        session_url, session.url = session.url, session.url.replace("/whip/echo/", "/whip/dialogue/")
        assert await session.delete() == 404
        session.url = session_url


async def test_a_session_has_so_many_listeners_and_no_more(server: Server, base_url: str) -> None:
    async with leaves_nothing(server), contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(posted(base_url, "/whip/echo", publisher(440)))
        for _ in range(MAX_LISTENERS):
            await stack.enter_async_context(posted(base_url, f"/whep/{session.id}", player(Ear())))
        pc = player(Ear())
        stack.push_async_callback(pc.close)
        await pc.setLocalDescription(await pc.createOffer())
        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with http.post(
            f"{base_url}/whep/{session.id}", data=pc.localDescription.sdp, headers={"Content-Type": SDP}
        ) as response:
            assert await problem(response) == (503, "server_full")


async def test_listeners_end_with_their_session(server: Server, base_url: str) -> None:
    ear = Ear()
    async with leaves_nothing(server), posted(base_url, "/whip/echo", publisher(440)) as session:
        pc = player(ear)
        async with posted(base_url, f"/whep/{session.id}", pc) as listener:
            await ear.until_voice()
            assert await session.delete() == 200
            await until(lambda: pc.connectionState == "closed", "the listener's end")
            assert await listener.delete() == 404


@pytest.mark.parametrize("begun", [False, True], ids=["before its sockets are made", "while they are made"])
async def test_a_session_that_ends_while_a_listener_is_answered_leaves_no_socket(
    server: Server, base_url: str, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    gathers, goes_on = asyncio.Event(), asyncio.Event()
    bind = IceConnection._bind

    async def binding(agent: IceConnection, host: str) -> MediaSocket | None:
        protocol = await bind(agent, host) if begun else None
        gathers.set()
        await goes_on.wait()
        return protocol if begun else await bind(agent, host)

    async with (
        leaves_nothing(server),
        contextlib.AsyncExitStack() as stack,
        aiohttp.ClientSession() as http,
        posted(base_url, "/whip/echo", publisher(440)) as session,
    ):
        pc = player(Ear())
        stack.push_async_callback(pc.close)
        await pc.setLocalDescription(await pc.createOffer())
        url, sdp = f"{base_url}/whep/{session.id}", pc.localDescription.sdp
        with monkeypatch.context() as patch:
            patch.setattr(IceConnection, "_bind", binding)
            asking = asyncio.create_task(http.post(url, data=sdp, headers={"Content-Type": SDP}), name="listener")
            await gathers.wait()
            assert await session.delete() == 200
            goes_on.set()
            async with await asking as response:
                assert await problem(response) == (404, "unknown_session")


async def test_a_listener_that_sends_only_is_none(server: Server, base_url: str) -> None:
    async with posted(base_url, "/whip/echo", publisher(440)) as session:
        pc = publisher(440)
        try:
            await pc.setLocalDescription(await pc.createOffer())
            headers = {"Content-Type": SDP}
            url = f"{base_url}/whep/{session.id}"
            async with session.http.post(url, data=pc.localDescription.sdp, headers=headers) as response:
                assert await problem(response) == (422, "no_audio")
        finally:
            await pc.close()


async def test_a_publisher_that_vanishes_is_not_waited_for() -> None:
    """It has no token to come back with."""
    async with running_server("--model", "echo", "--peer-timeout-s", "1") as server, leaves_nothing(server):
        url, pc = f"http://127.0.0.1:{server.port}", publisher(440)
        async with posted(url, "/whip/echo", pc) as session:
            await until(lambda: pc.connectionState == "connected", "the connection")
            blackhole(pc)
            await until(lambda: not len(server.registry), "the loss to be noticed")
            assert await session.delete() == 404
