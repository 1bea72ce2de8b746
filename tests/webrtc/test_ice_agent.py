"""The agent's sockets: where they are, what they take from strangers, and how it follows a peer that moves."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aioice import Candidate, Connection, stun
from aioice.ice import CandidatePair, StunProtocol
from aioice.turn import TurnClientUdpProtocol, TurnTransport

from lab.waiting import until
from rtc_server.errors import NoPort
from rtc_server.webrtc.datagrams import DATAGRAM_BURST, DATAGRAMS_PER_S, MAX_SOURCES
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.ice_agent import (
    MAX_PAIRS,
    MAX_PAIRS_AN_ADDRESS,
    MAX_WAITING,
    IceConnection,
    MediaSocket,
    _shield,
)
from tests.webrtc.test_ice import addresses, here

MEDIA = b"\x80" + bytes(40)
STRANGER = ("198.51.100.66", 6666)


def test_aioice_has_the_parts_that_are_replaced() -> None:
    """The contract: a version of aioice that differs fails here, by name."""
    assert {
        "_early_checks_done",
        "_nominated",
        "_protocols",
        "_query_consent_task",
        "_queue",
        "_remote_candidates",
        "_transport_policy",
        "_check_list",
        "_closing",
    } <= set(vars(Connection(ice_controlling=False)))
    replaced = {
        "build_request",
        "check_complete",
        "check_incoming",
        "check_start",
        "check_start_task",
        "data_received",
        "get_component_candidates",
        "query_consent",
        "recv",
        "request_received",
        "switch_role",
        "_add_remote_candidate",
        "_pair_remote_candidate",
        "_valid_username",
    }
    assert replaced <= set(vars(Connection))
    assert {"request", "datagram_received"} <= set(vars(StunProtocol))
    assert {"task", "state", "remote_candidate", "nominated"} <= set(vars(CandidatePair(None, None)))  # type: ignore[arg-type]


def test_aioice_works_as_ours_relies_on() -> None:
    """What comes in goes through one queue, checks are tasks of their pairs, and only nominated pairs are used."""
    assert "self._queue.put_nowait((data, component))" in inspect.getsource(Connection.data_received)
    assert "self.check_start_task(pair)" in inspect.getsource(Connection.check_incoming)
    assert "self.switch_role(" in inspect.getsource(Connection.check_start)
    assert "self._nominated.get(component)" in inspect.getsource(Connection.sendto)
    close = inspect.getsource(Connection.close)
    assert close.index("self._closing = True") < close.index("await"), "nothing is taken from then on"
    assert "create_task(self.query_consent())" in inspect.getsource(Connection.connect)


async def gathered(where: MediaAddresses) -> list[tuple[str, int]]:
    connection = IceConnection(where, ice_controlling=False)
    try:
        await connection.gather_candidates()
        return [(candidate.host, candidate.port) for candidate in connection.local_candidates]
    finally:
        await connection.close()


def test_what_a_turn_client_cannot_read_costs_nothing() -> None:
    """A PRIORITY without a value, of one who gives datagrams any source. aioice raises."""
    client = TurnClientUdpProtocol(("192.0.2.1", 3478), "user", "secret", 600, 500)
    relay = TurnTransport(client)
    bad = bytes.fromhex("000100042112a442") + bytes(12) + bytes.fromhex("00240000")
    with pytest.raises(struct.error):
        client.datagram_received(bad, ("192.0.2.1", 3478))
    _shield(relay)
    client.datagram_received(bad, ("192.0.2.1", 3478))


async def test_candidates_are_on_ports_of_the_range() -> None:
    found = await gathered(addresses(udp_ports="53000-53009"))
    assert found
    assert {port for _, port in found} <= set(range(53000, 53010))


async def test_a_range_that_is_taken_says_so() -> None:
    where = addresses(udp_ports="53020", interfaces=(here(),))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((here(), 53020))
        with pytest.raises(NoPort):
            await gathered(where)
    assert await gathered(where) == [(here(), 53020)]


async def test_the_public_address_stands_in_for_the_private_one() -> None:
    """The socket stays where it is."""
    where = addresses(public_ip=f"203.0.113.7/{here()}", interfaces=(here(),))
    ((host, _),) = await gathered(where)
    assert host == "203.0.113.7"
    assert where.shown("198.51.100.1") == "198.51.100.1"


async def test_only_the_interfaces_that_are_named() -> None:
    assert {host for host, _ in await gathered(addresses(interfaces=("lo",)))} <= {"127.0.0.1", "::1"}
    assert {host for host, _ in await gathered(addresses(interfaces=("127.0.0.1",)))} == {"127.0.0.1"}


@contextlib.asynccontextmanager
async def agents() -> AsyncIterator[tuple[IceConnection, IceConnection]]:
    """A client's and a server's, connected over this machine's own addresses."""
    where = addresses(interfaces=(here(),))
    client, server = IceConnection(where, ice_controlling=True), IceConnection(where, ice_controlling=False)
    for one, other in ((client, server), (server, client)):
        one.remote_username, one.remote_password = other.local_username, other.local_password
    try:
        for one, other in ((client, server), (server, client)):
            await one.gather_candidates()
            for candidate in one.local_candidates:
                await other.add_remote_candidate(candidate)
        await asyncio.gather(client.connect(), server.connect())
        yield client, server
    finally:
        await client.close()
        await server.close()


def socket_of(agent: IceConnection) -> MediaSocket:
    (protocol,) = agent._protocols
    assert isinstance(protocol, MediaSocket)
    return protocol


def source_of(agent: IceConnection) -> tuple[str, int]:
    candidate = socket_of(agent).local_candidate
    return candidate.host, candidate.port


def request_to(agent: IceConnection, key: str | None = None, **attributes: object) -> bytes:
    """A check of the peer of ``agent``; ``key`` signs it, the right one if it is None."""
    message = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    message.attributes |= {"USERNAME": f"{agent.local_username}:{agent.remote_username}", "PRIORITY": 1, **attributes}
    message.attributes = {name: value for name, value in message.attributes.items() if value is not None}
    message.add_message_integrity((agent.local_password if key is None else key).encode())
    return bytes(message)


def waiting(agent: IceConnection) -> int:
    return agent._queue.qsize()


async def test_one_that_is_closed_while_it_gathers_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far it has come: aioice closes those that it has by then."""
    bound: list[MediaSocket] = []
    bind = IceConnection._bind

    async def binding(agent: IceConnection, host: str) -> MediaSocket | None:
        protocol = await bind(agent, host)
        if protocol is not None:
            bound.append(protocol)
        return protocol

    monkeypatch.setattr(IceConnection, "_bind", binding)
    for turns in range(8):
        agent = IceConnection(addresses(), ice_controlling=False)
        gathering = asyncio.create_task(agent.gather_candidates())
        for _ in range(turns):
            await asyncio.sleep(0)
        await agent.close()
        await gathering
    assert bound
    assert all(each.transport.is_closing() for each in bound)


async def test_an_offer_of_many_candidates_causes_few_checks() -> None:
    """Of the addresses of a network, and of the ports of one machine."""
    agent = IceConnection(addresses(interfaces=(here(),)), ice_controlling=False)
    try:
        await agent.gather_candidates()
        for number in range(200):
            await agent.add_remote_candidate(candidate(f"203.0.113.{number}", 40_000))
            await agent.add_remote_candidate(candidate("198.51.100.1", 1024 + number))
        assert len(agent._check_list) <= MAX_PAIRS
        hosts = [pair.remote_candidate.host for pair in agent._check_list]
        assert hosts.count("198.51.100.1") <= MAX_PAIRS_AN_ADDRESS
    finally:
        await agent.close()


async def test_a_client_from_far_has_no_private_addresses_checked() -> None:
    agent = IceConnection(addresses(interfaces=(here(),)).towards("203.0.113.9"), ice_controlling=False)
    try:
        await agent.gather_candidates()
        for host in ("10.0.0.1", "192.168.1.1", "fd12::1", "169.254.169.254", "203.0.113.9"):
            await agent.add_remote_candidate(candidate(host, 40_000))
        assert [each.host for each in agent.remote_candidates] == ["203.0.113.9"]
    finally:
        await agent.close()


def candidate(host: str, port: int) -> Candidate:
    return Candidate("1", 1, "udp", 1, host, port, "host")


async def test_what_the_peer_sends_arrives() -> None:
    async with agents() as (client, server):
        await client.send(MEDIA)
        assert await server.recv() == MEDIA
        await server.send(b"\x16" + bytes(20))
        assert await client.recv() == b"\x16" + bytes(20)


async def test_strangers_are_not_read_and_not_answered() -> None:
    """All kinds of datagrams; the checks among them are not signed by the peer."""
    async with agents() as (_, server):
        sent: list[bytes] = []
        door = socket_of(server)
        door.transport = _Recorder(door.transport, sent)
        unsigned = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        unsigned.attributes["USERNAME"] = f"{server.local_username}:{server.remote_username}"
        for datagram in (
            b"",
            MEDIA,
            b"\x80" + bytes(1600),
            bytes.fromhex("15fefd0000000000000000000002") + b"\x01\x00",
            b"\x16" + bytes(100),
            *(bytes([first]) + bytes(30) for first in range(256)),
            bytes(unsigned),
            request_to(server, "x" * 22),
            request_to(server)[:-1],
            bytes.fromhex("000100042112a442") + bytes(12) + bytes.fromhex("00240000"),  # a PRIORITY without a value
        ):
            door.datagram_received(datagram, STRANGER)
        assert (waiting(server), sent) == (0, [])
        assert len(server.remote_candidates) == 1


class _Recorder:
    """A transport that keeps what is sent."""

    def __init__(self, transport: asyncio.DatagramTransport, sent: list[bytes]) -> None:
        self._transport = transport
        self._sent = sent

    def sendto(self, data: bytes, addr: object = None) -> None:
        self._sent.append(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_a_check_that_is_played_back_opens_nothing() -> None:
    """It is signed, so it is answered and checked in turn; what its sender sends is not read, for it cannot answer."""
    async with agents() as (_, server):
        door = socket_of(server)
        recorded = request_to(server)
        for number in range(200):
            source = (STRANGER[0], 1024 + number)
            door.datagram_received(recorded, source)
            for _ in range(20):
                door.datagram_received(MEDIA, source)
        assert waiting(server) == 0
        assert len(server.remote_candidates) <= 1 + MAX_SOURCES
        assert len(server._check_list) <= 1 + MAX_SOURCES
        assert server._nominated[1].remote_addr != source


async def test_what_is_not_read_does_not_grow() -> None:
    async with agents() as (client, server):
        for number in range(3 * MAX_WAITING):
            socket_of(server).datagram_received(MEDIA + number.to_bytes(2, "big"), source_of(client))
        assert waiting(server) == MAX_WAITING
        assert await server.recv() == MEDIA + (2 * MAX_WAITING).to_bytes(2, "big"), "the oldest are dropped"
        socket_of_closed, source = socket_of(server), source_of(client)
        await server.close()
        socket_of_closed.datagram_received(MEDIA, source)
        assert vars(server._queue)["_queue"][-1] is None, "that it is closed is still read"


async def test_a_peer_cannot_flood() -> None:
    async with agents() as (client, server):
        taken, began_at = 0, time.monotonic()
        for _ in range(5000):
            socket_of(server).datagram_received(MEDIA, source_of(client))
            taken += waiting(server)
            with contextlib.suppress(asyncio.QueueEmpty):
                server._queue.get_nowait()
        brought = math.ceil(DATAGRAMS_PER_S * (time.monotonic() - began_at))
        assert 900 < taken <= DATAGRAM_BURST + brought


async def test_what_comes_before_its_sender_is_proven_is_held() -> None:
    """A peer may send as soon as its check was answered, before it has answered ours."""
    async with agents() as (client, server):
        door = socket_of(server)
        await _checked(client, server)
        moved = _second_socket(client)
        async with moved as (port, mine):
            source = (here(), port)
            door.datagram_received(request_to(server), source)
            for number in range(3):
                door.datagram_received(MEDIA + bytes([number]), source)
            assert waiting(server) == 0
            await _answer(mine, client)
            await until(lambda: waiting(server) == 3, "what was held")


async def _checked(*agents: IceConnection) -> None:
    """Until no check is under way: one that ends, or comes again, gives up those that have not begun (aioice)."""
    await until(
        lambda: not any(pair.task and not pair.task.done() for agent in agents for pair in agent._check_list),
        "the end of all checks",
    )


@contextlib.asynccontextmanager
async def _second_socket(client: IceConnection) -> AsyncIterator[tuple[int, socket.socket]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.setblocking(False)
        mine.bind((here(), 0))
        yield mine.getsockname()[1], mine


async def _answer(mine: socket.socket, client: IceConnection) -> None:
    """Answer the next check that comes to a socket as the client would."""
    loop = asyncio.get_running_loop()
    while True:
        data, source = await loop.sock_recvfrom(mine, 2000)
        message = stun.parse_message(data)
        if message.message_class is stun.Class.REQUEST:
            break
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, message.transaction_id)
    answer.attributes["XOR-MAPPED-ADDRESS"] = source
    answer.add_message_integrity(client.local_password.encode())
    await loop.sock_sendto(mine, bytes(answer), source)
