"""Clients that never connect, hang up, vanish or close: their sessions end, and nothing of them stays."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiortc import RTCSessionDescription

from lab.network.vanishing import vanish
from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.webrtc.transceivers import LeanPeerConnection
from tests.conftest import running_server
from tests.support.calls import assert_serves, get_json, offering
from tests.support.leftovers import leaves_nothing
from tests.support.server_process import PROBED, assert_gives_back, server_process, until_empty
from tests.support.trouble import url_of

pytestmark = pytest.mark.slow

GONE_S = 6.0
"""In which a peer timeout of one second must have done its work: a second of silence, the wait for what was sent last,
and a slow machine."""


async def ended_for(server: Server, reason: str) -> float:
    """How many sessions have ended for this reason."""
    return server.metrics.sessions_ended.labels(reason)._value.get()  # type: ignore[no-any-return]


async def test_a_client_that_never_connects_loses_its_session() -> None:
    async with running_server("--model", "echo", "--connect-timeout-s", "4") as server, leaves_nothing(server):
        async with offering() as body, aiohttp.ClientSession() as http:
            async with http.post(f"{url_of(server)}/api/offer", json=body) as response:
                session = (await response.json())["session"]
            status, view = await get_json(f"{url_of(server)}/api/sessions/{session}")
            assert (status, view["state"]) == (200, "connecting")
            await until(lambda: not len(server.registry), "the session's end", 12.0)
        assert await ended_for(server, "connect_timeout") == 1
        status, view = await get_json(f"{url_of(server)}/api/sessions/{session}")
        assert (status, view["error"]["code"]) == (410, "session_ended")
        # What to look at: said to the client, for whom the data channel never opened.
        assert "TURN" in view["error"]["message"]
        await assert_serves(url_of(server))


async def test_a_client_that_hangs_up_before_it_has_its_answer() -> None:
    """Its session goes as that of any client that never connects."""
    async with running_server("--model", "echo", "--connect-timeout-s", "0.5") as server, leaves_nothing(server):
        async with offering() as body:
            raw = json.dumps(body).encode()
            head = "POST /api/offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: {len(raw)}\r\n\r\n"
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(head.encode() + raw)
                await writer.drain()
                writer.transport.abort()
        await assert_serves(url_of(server))


@pytest.mark.parametrize("close_sockets", [False, True], ids=["silently", "with-closed-ports"])
async def test_a_client_that_vanishes_is_missed(close_sockets: bool) -> None:
    """No goodbye of any kind: after the peer timeout the session is lost and its slot free."""
    ear = Ear()
    async with (
        running_server(
            "--model", "echo", "--peer-timeout-s", "1", "--resume-grace-s", "0", "--echo-slots", "1"
        ) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440), on_voice=ear) as client,
    ):
        await ear.until_voice()
        vanish(client, close_sockets)
        await until(lambda: not len(server.registry), "the session's end", GONE_S)
        assert await ended_for(server, "peer_lost") == 1
        await assert_serves(url_of(server))


async def test_a_client_that_wants_few_stats_is_missed_as_soon() -> None:
    """How often a client asks for figures is no affair of the one who looks whether it is there."""
    ear = Ear()
    options = {"stats_interval_ms": 10_000}
    async with (
        running_server("--model", "echo", "--peer-timeout-s", "1", "--resume-grace-s", "0") as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440), options=options, on_voice=ear) as client,
    ):
        await ear.until_voice()
        vanish(client)
        await until(lambda: not len(server.registry), "the session's end", GONE_S)
        assert await ended_for(server, "peer_lost") == 1


async def test_a_client_that_closes_is_gone_at_once(server: Server, base_url: str) -> None:
    ear = Ear()
    async with leaves_nothing(server):
        async with VoiceClient(base_url, tone(440), on_voice=ear):
            await ear.until_voice()
        await until(lambda: not len(server.registry), "the session's end")
        assert await ended_for(server, "bye") == 1


async def test_a_client_that_leaves_while_it_connects() -> None:
    """At any moment of the handshake, whichever side ends it: nothing stays for longer than a client is waited for.

    One that leaves when only the server is done cannot say goodbye."""
    arguments = ("--model", "echo", "--connect-timeout-s", "2", "--resume-grace-s", "5")
    # In a process of its own: what aioice leaves behind in the client, closed in mid-handshake, is not at issue.
    async with server_process(*arguments, module=PROBED) as server:
        await server.wait_ready()
        await assert_serves(server.url)
        await until_empty(server)
        before = await server.probe()
        for delay_ms in range(0, 80, 2):
            async with VoiceClient(server.url, tone(440)) as client, aiohttp.ClientSession() as http:
                await asyncio.sleep(delay_ms / 1000)
                if delay_ms % 4:
                    async with http.delete(f"{server.url}/api/sessions/{client.session}") as response:
                        assert response.status == 204
        await until_empty(server)
        await assert_gives_back(server, before)
        await assert_serves(server.url)


@pytest.mark.parametrize("turns", range(6))
async def test_a_client_that_gives_up_while_it_takes_the_answer_keeps_no_socket(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever turn of the loop: half of what a bundle does not need was left open."""
    begun, take = asyncio.Event(), LeanPeerConnection.setRemoteDescription

    async def noted(pc: LeanPeerConnection, description: RTCSessionDescription) -> None:
        if description.type == "answer":
            begun.set()
        await take(pc, description)

    monkeypatch.setattr(LeanPeerConnection, "setRemoteDescription", noted)
    async with running_server("--model", "echo", "--connect-timeout-s", "1") as server, leaves_nothing(server):
        client = VoiceClient(f"http://127.0.0.1:{server.port}")
        connecting = asyncio.create_task(client.connect(), name="connect")
        await begun.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait({connecting})
        await client.close()
