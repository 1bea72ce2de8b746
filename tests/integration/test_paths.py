"""A path that changes or is lost while client and server live on: it is followed, or waited for, and never taken for a
goodbye."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamTrack

from lab.network.vanishing import vanish
from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.client import VoiceClient
from rtc_server.sessions.state import SessionState
from tests.conftest import running_server
from tests.support.calls import MuteTrack, TapeTrack, get_json, listen, track_client
from tests.support.leftovers import leaves_nothing
from tests.support.nat import Nat, agents_of, call_through_nat, url_of
from tests.webrtc.test_ice import here

pytestmark = pytest.mark.slow

FOLLOWED_S = 4.0
"""In which a new address must be in use: less than the time after which a path is lost."""


def states(server: object) -> Counter[SessionState]:
    return server.registry.count_by_state()  # type: ignore[attr-defined, no-any-return]


async def test_a_client_whose_address_changes_hears_on() -> None:
    """And is heard, and the session has not waited for it; as often as it happens."""
    ear = Ear()
    async with (
        running_server("--model", "echo") as server,
        leaves_nothing(server),
        call_through_nat(server, ear) as (client, path),
    ):
        (agent,) = agents_of(server)
        for _ in range(3):
            before = path.outside
            await path.rebind()
            assert path.outside != before
            await until(lambda: agent._nominated[1].remote_addr == path.outside, "the new address in use", FOLLOWED_S)
            heard = ear.samples
            await until(lambda heard=heard: ear.samples > heard, "the voice")
            await ear.until_voice()
            assert states(server)[SessionState.WAITING] == 0
        assert not [event for event in client.events if event["type"] == "disconnected"]


@pytest.mark.parametrize("talks", [True, False])
async def test_a_client_that_does_not_nominate_is_followed(talks: bool) -> None:
    """aiortc's own agent: it nominates once, and asks every five seconds. One that talks is found sooner."""
    track: MediaStreamTrack = TapeTrack(440) if talks else MuteTrack()
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTrack(track)
    ear = Ear()
    hearing: list[asyncio.Task[None]] = []
    pc.on("track", lambda remote: hearing.append(asyncio.create_task(listen(remote, ear))))
    async with running_server("--model", "echo", "--peer-timeout-s", "10") as server, Nat(here()) as nat:
        async with nat.call(url_of(server), pc):
            await until(lambda: states(server)[SessionState.LISTENING] == 1, "the connection")
            (agent,) = agents_of(server)
            await nat.rebind()
            deadline_s = FOLLOWED_S if talks else 9.0
            await until(lambda: agent._nominated[1].remote_addr == nat.outside, "the new address in use", deadline_s)
            answers = agent.answers
            await until(lambda: agent.answers > answers, "an answer from there")
        for task in hearing:
            await task


async def test_a_path_that_works_one_way_is_lost() -> None:
    """What the client sends arrives, which proves nothing of what it gets."""
    ear = Ear()
    async with (
        running_server("--model", "echo", "--peer-timeout-s", "1") as server,
        leaves_nothing(server),
        call_through_nat(server, ear) as (_, path),
    ):
        path.one_way = True
        await until(lambda: states(server)[SessionState.WAITING] == 1, "the loss to be noticed")
        path.one_way = False
        await until(lambda: states(server)[SessionState.WAITING] == 0, "the way back")
        heard = ear.samples
        await until(lambda: ear.samples > heard, "the voice")


@pytest.mark.parametrize("grace_s", [5])
async def test_consent_that_expires_is_no_goodbye(grace_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session waits for as long as was promised, longer than anything is sent; and then says why it has ended."""
    monkeypatch.setattr("rtc_server.webrtc.ice_agent._CONSENT_LIFETIME_S", 1.5)
    async with (
        running_server("--model", "echo", "--peer-timeout-s", "1", "--resume-grace-s", str(grace_s)) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        vanish(client)
        await until(lambda: states(server)[SessionState.WAITING] == 1, "the loss to be noticed")
        lost_at = time.monotonic()
        (call,) = server.registry
        await until(lambda: call.presence.transport is None, "the end of the connection", grace_s - 1)
        assert states(server)[SessionState.WAITING] == 1
        await until(lambda: not len(server.registry), "the end of the grace")
        assert time.monotonic() - lost_at > grace_s - 1
        status, body = await get_json(f"{url_of(server)}/api/sessions/{client.session}")
        assert (status, body["error"]["code"]) == (410, "session_ended")
        assert "peer_lost" in body["error"]["message"]


async def test_after_consent_has_expired_the_client_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.webrtc.ice_agent._CONSENT_LIFETIME_S", 1.5)
    async with (
        running_server("--model", "echo", "--peer-timeout-s", "1") as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        vanish(client)
        (call,) = server.registry
        await until(lambda: call.presence.transport is None, "the end of the connection")
        await client.resume()
        await client.wait_for("connected", resumed=True)


async def test_a_socket_that_is_gone_is_a_path_that_is_lost() -> None:
    async with (
        running_server("--model", "echo", "--peer-timeout-s", "1") as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440)) as client,
    ):
        await client.wait_for("connected")
        (agent,) = agents_of(server)
        for protocol in agent._protocols:
            protocol.transport.abort()
        await until(lambda: states(server)[SessionState.WAITING] == 1, "the loss to be noticed")
        await client.resume()
        await client.wait_for("connected", resumed=True)


async def test_a_client_that_closes_has_said_goodbye() -> None:
    """DTLS's close_notify, which only the peer can send, is one, as ``bye`` is."""
    async with running_server("--model", "echo", "--resume-grace-s", "100") as server, leaves_nothing(server):
        client = track_client(url_of(server), TapeTrack(440))
        async with client:
            await client.wait_for("connected")
        await until(lambda: not len(server.registry), "the end")
        ended = server.metrics.sessions_ended.labels("bye")._value.get()
        assert ended == 1
