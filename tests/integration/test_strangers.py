"""What strangers send to a media port, in a call and before it: no one notices, no line is logged, nothing grows."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator

import aiohttp
import pytest

from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.client import VoiceClient
from rtc_server.webrtc.ice_agent import IceConnection
from tests.conftest import running_server
from tests.support.calls import offering
from tests.support.leftovers import leaves_nothing
from tests.support.nat import agent_of, agents_of, call_through_nat, url_of
from tests.support.strangers import Address, datagrams, records, stranger
from tests.webrtc.test_ice import here


def username_of(agent: IceConnection) -> str:
    return f"{agent.local_username}:{agent.remote_username}"


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged, at the level at which servers run."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.WARNING, "aioice")
    yield
    lines = [record.getMessage() for record in caplog.get_records("call") if record.name != "rtc_server.app"]
    noise = [line for line in lines if not re.search(r"opened, service|ended, |listens|ready|engine|stopp", line)]
    assert noise == []


async def assert_goes_on(client: VoiceClient, ear: Ear, identity: str) -> None:
    client.send({"type": "ping", "id": identity})
    await client.wait_for("pong", id=identity)
    await ear.hear(0.2)
    await ear.until_voice()


async def test_a_call_goes_on_whatever_strangers_send(quiet: None) -> None:
    """To the server and to the client, in both cases also from one who has recorded all that the other has sent."""
    ear = Ear()
    async with (
        running_server("--model", "echo") as server,
        leaves_nothing(server),
        call_through_nat(server, ear) as (client, path),
        stranger(here()) as spray,
    ):
        (agent,) = agents_of(server)
        await spray.send(datagrams(path.heard, username_of(agent)), path.server)
        await assert_goes_on(client, ear, "server")
        mine = agent_of(client)
        to_client: Address = (mine._nominated[1].local_candidate.host, mine._nominated[1].local_candidate.port)
        await spray.send(datagrams(path.heard, username_of(mine)), to_client)
        await assert_goes_on(client, ear, "client")
        assert agent._nominated[1].remote_addr == path.outside, "the path has not moved"


@pytest.mark.slow
async def test_a_call_goes_on_whatever_comes_from_its_own_address(quiet: None) -> None:
    """One who can give a datagram any source: no parser behind the gate may fail for more than its datagram."""
    ear = Ear()
    async with (
        running_server("--model", "echo") as server,
        leaves_nothing(server),
        call_through_nat(server, ear) as (client, path),
    ):
        (agent,) = agents_of(server)
        (door,) = (each for each in agent._protocols if each is agent._nominated[1].protocol)
        for number, datagram in enumerate(datagrams(path.heard, username_of(agent))):
            door.datagram_received(datagram, path.outside)
            if number % 10 == 0:
                await asyncio.sleep(0.012)  # the peer's own bound is not what is tried here
        await assert_goes_on(client, ear, "server")
        mine = agent_of(client)
        for number, datagram in enumerate(datagrams(path.heard, username_of(mine))):
            mine._nominated[1].protocol.datagram_received(datagram, mine._nominated[1].remote_addr)
            if number % 10 == 0:
                await asyncio.sleep(0.012)
        await assert_goes_on(client, ear, "client")


async def test_clients_connect_while_strangers_spray_the_ports(quiet: None) -> None:
    """Alerts, and all other records, 20 to each port in a second: what waited for the handshake would end it."""
    async with (
        running_server("--model", "echo", "--udp-ports", "53100-53129") as server,
        leaves_nothing(server),
        stranger(here()) as spray,
    ):

        async def attack() -> None:
            while True:
                for record in records():
                    for port in range(53100, 53130):
                        spray.transport.sendto(record, (here(), port))
                    await asyncio.sleep(0.05)

        attacking = asyncio.create_task(attack(), name="attack")
        try:
            for _ in range(6):
                async with VoiceClient(url_of(server), tone(440)) as client:
                    await client.wait_for("connected")
        finally:
            attacking.cancel()


async def test_a_session_that_has_not_connected_keeps_nothing(quiet: None) -> None:
    async with (
        running_server("--model", "echo") as server,
        leaves_nothing(server),
        offering() as body,
        aiohttp.ClientSession() as http,
        stranger(here()) as spray,
    ):
        async with http.post(f"{url_of(server)}/api/offer", json=body) as response:
            answer = await response.json()
        port = int(re.search(rf" {re.escape(here())} (\d+) typ host", answer["sdp"])[1])  # type: ignore[index]
        (agent,) = agents_of(server)
        received = 0
        count = agent.gate.hold

        def counted(datagram: bytes, source: Address) -> bool:
            nonlocal received
            received += 1
            return count(datagram, source)

        agent.gate.hold = counted  # type: ignore[method-assign]
        await spray.send([b"\x80" + bytes(1399), b"\x16" + bytes(1399)] * 1000, (here(), port))
        await until(lambda: received >= 1000, "half of the flood")
        assert agent._queue.qsize() == 0
        assert not agent.gate._held
        assert len(agent._early_checks) == 0
        assert spray.answers == 0
        async with http.delete(f"{url_of(server)}/api/sessions/{answer['session']}"):
            pass
