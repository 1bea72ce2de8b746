"""Media on its way from the socket to the application: in the socket's own callback, if the peer has protected it.

Two connected peers in one process; datagrams are put into the server's socket by hand, and what has been heard is
looked at before anything else can run, except where it says so.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aioice import stun
from aioice.turn import TurnClientTcpProtocol, TurnClientUdpProtocol
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket, RtcpSenderInfo, RtcpSrPacket

from lab.network.wired import STRANGER, End, Wired
from lab.waiting import until
from rtc_server.system.rate_limit import TokenBucket
from rtc_server.webrtc.datagrams import Source
from rtc_server.webrtc.faults import FAULTS
from rtc_server.webrtc.ice_agent import MediaSocket
from rtc_server.webrtc.media_transport import DTLS_BURST, MAX_SOURCES, REPORT_BURST, MediaTransport
from rtc_server.webrtc.rtp_packet import Packet
from tests.webrtc.test_ice import here
from tests.webrtc.test_ice_agent import _answer, _second_socket, request_to

SSRC = 78
RELAY = ("192.0.2.1", 3478)


@dataclass
class Call:
    """``heard``: the packets that the server's application has got."""

    wired: Wired
    heard: list[Packet] = field(default_factory=list)

    @property
    def client(self) -> End:
        return self.wired.client

    @property
    def server(self) -> End:
        return self.wired.server

    @property
    def numbers(self) -> list[int]:
        return [packet.sequence_number for packet in self.heard]

    def on_packet(self, codec: str, packet: Packet) -> None:
        self.heard.append(packet)

    def sealed(self, number: int, ssrc: int = SSRC, payload_type: int | None = None, flags: int = 0) -> bytes:
        """A packet as the client would send it."""
        own = next(iter(self.server.transport._rtp_router.payload_type_table))
        header = struct.pack("!BBHLL", 0x80 | flags, own if payload_type is None else payload_type, number, 960, ssrc)
        return bytes(self.client.transport._tx_srtp.protect(header + b"sound of a voice\x20"))

    def put(self, datagram: bytes, source: Source | None = None) -> None:
        self.server.put(datagram, self.server.pair.remote_addr if source is None else source)


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    wired = Wired()
    await wired.connect()
    call = Call(wired)
    wired.server.pc.set_packet_sink(call.on_packet)
    yield call
    await wired.close()
    assert wired.errors == []


async def test_a_packet_is_heard_before_the_socket_is_read_again(call: Call) -> None:
    """With its header's numbers; nothing waits, and nothing is left to do."""
    tasks = asyncio.all_tasks()
    call.put(call.sealed(1))
    (packet,) = call.heard
    assert (packet.sequence_number, packet.timestamp, packet.ssrc) == (1, 960, SSRC)
    assert packet.payload == b"sound of a voice\x20"
    assert call.server.agent._queue.qsize() == 0
    assert asyncio.all_tasks() == tasks


async def test_what_is_not_the_peers_is_not_heard(call: Call) -> None:
    """Of a stranger's address; not protected; with a bit turned over anywhere; and played back."""
    first, good = call.sealed(1), call.sealed(2)
    call.put(first)
    call.put(good, STRANGER)
    call.put(good[:12] + b"sound of a voice" + bytes(10))
    for at in range(len(good)):
        call.put(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    await call.wired.settle()
    assert call.numbers == [1]
    for datagram in (good, good, call.sealed(4), good, first):
        call.put(datagram)
    assert call.numbers == [1, 2, 4]
    assert call.server.pc.rtp_figures().packets_received == 3


async def test_a_packet_that_is_cut_off_or_does_not_fit_costs_itself(call: Call) -> None:
    """Also one that the peer itself has protected: more padding than payload, and a type that was not agreed on."""
    call.put(call.sealed(1))
    good = call.sealed(2)
    for size in range(len(good)):
        call.put(good[:size])
    call.put(call.sealed(3, flags=0x20))
    call.put(call.sealed(4, payload_type=1))
    await call.wired.settle()
    assert call.numbers == [1]
    call.put(call.sealed(5))
    assert call.numbers == [1, 5]


async def test_what_comes_before_there_are_keys_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the end whose handshake is done last: the packets of the other are heard afterwards, in order."""
    call = Call(Wired())
    early: list[End] = []
    setup = MediaTransport._setup_srtp

    def watched(transport: MediaTransport) -> None:
        for one, other in call.wired.ends():
            if other.transport is transport and one.transport._tx_srtp is not None:
                early.append(other)
                call.wired.client, call.wired.server = one, other  # whichever they are
                other.pc.set_packet_sink(call.on_packet)
                for number in (1, 2, 3):
                    call.put(call.sealed(number))
                assert call.heard == []
        setup(transport)

    # The receiver is told its payload types when it begins, which is after the handshake.
    monkeypatch.setattr(Call, "sealed", _sealed_for_audio)
    monkeypatch.setattr(MediaTransport, "_setup_srtp", watched)
    try:
        await call.wired.connect()
        assert len(early) == 1
        assert call.numbers == [1, 2, 3]
        assert call.wired.errors == []
    finally:
        await call.wired.close()


def _sealed_for_audio(call: Call, number: int) -> bytes:
    (transceiver,) = call.client.pc.getTransceivers()
    header = struct.pack("!BBHLL", 0x80, transceiver._codecs[0].payloadType, number, 960, SSRC)
    return bytes(call.client.transport._tx_srtp.protect(header + b"sound"))


@pytest.mark.parametrize("end", ["ours", "the transport's", "the path's", "the peer's"])
async def test_after_the_end_nothing_is_heard(call: Call, end: str) -> None:
    """And nothing is kept: neither after a close of ours nor while one is under way, nor after the peer's goodbye."""
    protocol, source = call.server.pair.protocol, call.server.pair.remote_addr
    agent, late = call.server.agent, [call.sealed(number) for number in range(1, 5)]
    protocol.datagram_received(late[0], source)
    if end == "ours":
        await call.server.pc.close()
    elif end == "the transport's":
        await call.server.transport.stop()
    elif end == "the path's":
        closing = asyncio.create_task(agent.close())
        await asyncio.sleep(0)  # it has begun
        protocol.datagram_received(late[1], source)
        await closing
    else:
        await call.client.pc.close()
        await until(lambda: call.server.transport.state == "closed", "the goodbye")
    protocol.datagram_received(late[2], source)
    await call.wired.settle()
    protocol.datagram_received(late[3], source)
    await call.wired.settle()
    assert call.numbers == [1]


async def test_a_peer_that_moves_is_heard_from_its_new_address(call: Call) -> None:
    """Once it has answered from there: first what it has sent before, then what follows, in order."""
    moved = request_to(call.server.agent)
    # Not the nominated pair's, which may be of IPv6: then no check of it reaches the other socket.
    (door,) = [each for each in call.server.agent._protocols if each.local_candidate.host == here()]
    async with _second_socket(call.client.agent) as (port, mine):
        source = (here(), port)
        call.put(call.sealed(1))
        door.datagram_received(call.sealed(2), source)
        assert call.numbers == [1], "its new address is a stranger's yet"
        door.datagram_received(moved, source)
        for number in (3, 4, 5):
            door.datagram_received(call.sealed(number), source)
        await call.wired.settle()
        assert call.numbers == [1], "recorded checks are signed too"
        await _answer(mine, call.client.agent)
        await until(lambda: len(call.heard) > 1, "what was held")
        assert call.numbers == [1, 3, 4, 5]
        door.datagram_received(call.sealed(6), source)
        call.put(call.sealed(7))
        assert call.numbers == [1, 3, 4, 5, 6, 7], "at once, from both"


async def test_media_does_not_overtake_what_waits(call: Call) -> None:
    """What was held is read in the transport's task; what comes before that has run waits behind it."""
    for number in (1, 2):
        call.server.agent.data_received(call.sealed(number), 1)
    call.put(call.sealed(3))
    assert call.heard == []
    await call.wired.settle()
    call.put(call.sealed(4))
    assert call.numbers == [1, 2, 3, 4]


async def test_reports_on_the_same_port_are_reports(call: Call) -> None:
    """RTCP that is multiplexed with media (RFC 5761): read by those that it is for, and by no sink."""
    (transceiver,) = call.server.pc.getTransceivers()
    call.put(call.sealed(1))
    ours = transceiver.sender._ssrc
    info = RtcpReceiverInfo(ours, 64, packets_lost=1, highest_sequence=9, jitter=0, lsr=0, dlsr=0)
    when = RtcpSenderInfo(ntp_timestamp=5 << 32, rtp_timestamp=960, packet_count=1, octet_count=17)
    protect = call.client.transport._tx_srtp.protect_rtcp
    reports: list[RtcpRrPacket | RtcpSrPacket] = [
        RtcpRrPacket(ssrc=SSRC, reports=[info]),
        RtcpSrPacket(ssrc=SSRC, sender_info=when),
    ]
    for report in reports:
        call.put(protect(bytes(report)))
    call.put(call.sealed(2))
    await call.wired.settle()
    assert call.numbers == [1, 2]
    assert call.server.pc.rtp_figures().fraction_lost_out == 0.25
    private = vars(transceiver.receiver)
    assert private["_RTCRtpReceiver__lsr"] == {SSRC: 5 << 16}


def _stand_still(bucket: TokenBucket) -> None:
    """What passes is its burst, however long the test takes."""
    bucket._rate_per_s, bucket._tokens = 0.0, float(bucket._burst)


async def test_a_flood_of_reports_costs_the_reports(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """One datagram has room for thousands of numbers of lost packets, and a peer has a thousand datagrams a second."""
    read: list[bytes] = []
    _stand_still(call.server.transport._reports)

    async def reading(data: bytes) -> None:
        read.append(data)

    monkeypatch.setattr(call.server.transport, "_handle_rtcp_data", reading)
    protect = call.client.transport._tx_srtp.protect_rtcp
    lost = struct.pack("!LL", SSRC, 1) + struct.pack("!HH", 1, 0xFFFF) * 300
    for number in range(900):
        call.put(protect(struct.pack("!BBH", 0x81, 205, len(lost) // 4) + lost))
        if number % 100 == 99:
            await call.wired.settle()
            call.put(call.sealed(number))
    assert len(read) == REPORT_BURST
    assert len(call.heard) == 9


async def test_a_flood_of_records_costs_the_records(call: Call) -> None:
    """Of those who have the keys; a datagram has room for dozens of them."""
    _stand_still(call.server.transport._dtls)
    ssl, before = call.client.transport._ssl, call.server.records
    for number in range(3000):
        ssl.send(b"x")
        call.put(ssl.bio_read(1500))
        if number % 100 == 99:
            call.server.agent.gate._datagrams._tokens = 1000.0  # the limit of all kinds is not what is tried
            await call.wired.settle()
    assert call.server.records - before == DTLS_BURST
    call.server.watch()
    await call.wired.assert_lives()


async def test_a_new_source_is_heard_and_many_at_once_are_not(call: Call) -> None:
    """A client that changes its SSRC goes on; a flood of them costs the flood, and not the source that is known."""
    for number in range(3 * MAX_SOURCES):
        call.put(call.sealed(1, ssrc=1000 + number))
        call.put(call.sealed(number + 1))
    sources = [packet.ssrc for packet in call.heard]
    assert sources.count(SSRC) == 3 * MAX_SOURCES
    assert 1000 in sources
    assert len(set(sources)) <= MAX_SOURCES + 2


async def test_figures_are_of_all_that_came(call: Call) -> None:
    """Of the transport's, all datagrams; of the receiver's and of its reports, the packets and the gaps between."""
    before = next(iter(call.server.transport._get_stats().values()))
    made = [call.sealed(number) for number in (1, 2, 5, 6)]
    for datagram in [*made, made[0]]:
        call.put(datagram)
    after = next(iter(call.server.transport._get_stats().values()))
    assert after.packetsReceived - before.packetsReceived == 5
    assert after.bytesReceived - before.bytesReceived == sum(map(len, made)) + len(made[0])
    figures = call.server.pc.rtp_figures()
    assert (figures.packets_received, figures.packets_lost) == (4, 2)
    receiver = call.server.pc.getTransceivers()[0].receiver
    (theirs,) = [each for each in (await receiver.getStats()).values() if each.type == "inbound-rtp"]
    assert (theirs.packetsReceived, theirs.packetsLost) == (4, 2)


async def test_an_application_that_fails_costs_one_packet(call: Call) -> None:
    """The socket stays open, and aiortc's task does not see it."""

    def failing(codec: str, packet: Packet) -> None:
        call.heard.append(packet)
        raise RuntimeError("of the application")

    call.server.pc.set_packet_sink(failing)
    for number in (1, 2):
        call.put(call.sealed(number))
    call.server.agent.data_received(call.sealed(3), 1)
    await call.wired.settle()
    call.server.pc.set_packet_sink(call.on_packet)
    call.put(call.sealed(4))
    assert call.numbers == [1, 2, 3, 4]
    assert not call.server.pair.protocol.transport.is_closing()
    assert FAULTS.last is None
    call.server.watch()
    await call.wired.assert_lives()


@pytest.mark.parametrize("protocol", [TurnClientUdpProtocol, TurnClientTcpProtocol])
async def test_what_a_relay_hands_on_is_heard_at_once(call: Call, protocol: Any) -> None:
    """In a channel and in an indication (RFC 8656, sections 11.6 and 12.7), over UDP and, several at a time, over
    TCP; and an application that fails costs one of them."""
    source = call.server.pair.remote_addr
    relay = protocol(RELAY, "user", "secret", 600, 500)
    relay.receiver = MediaSocket(call.server.agent)
    relay.channel_to_peer[0x4000] = source
    relay.peer_to_channel[source] = 0x4000
    data = [call.sealed(number) for number in range(1, 5)]
    channel = [struct.pack("!HH", 0x4000, len(each)) + each + bytes(-len(each) % 4) for each in data]
    told = stun.Message(stun.Method.DATA, stun.Class.INDICATION)
    told.attributes |= {"XOR-PEER-ADDRESS": source, "DATA": data[3]}

    def failing_once(codec: str, packet: Packet) -> None:
        call.on_packet(codec, packet)
        if len(call.heard) == 1:
            raise RuntimeError("of the application")

    call.server.pc.set_packet_sink(failing_once)
    if protocol is TurnClientTcpProtocol:
        relay.transport = _Stream()
        stream = b"".join([*channel[:3], bytes(told)])
        relay.data_received(stream[:50])
        relay.data_received(stream[50:])
    else:
        for datagram in [*channel[:3], bytes(told)]:
            relay.datagram_received(datagram, RELAY)
    assert call.numbers == [1, 2, 3, 4]


class _Stream:
    """A connection to a relay."""

    def get_extra_info(self, name: str) -> Source:
        return RELAY
