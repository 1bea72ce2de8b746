"""A client and a server in conversation within one process, into whose sockets datagrams are put by hand."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from typing import Any, Final, Self

from aiortc import RTCConfiguration, RTCSessionDescription

from rtc_server.webrtc.data_transport import MAX_CHANNELS
from rtc_server.webrtc.datagrams import MAX_DATAGRAM_BYTES, MAX_HELD, MAX_SOURCES, Gate, Source
from rtc_server.webrtc.faults import FAULTS
from rtc_server.webrtc.ice_agent import MAX_WAITING, IceConnection
from rtc_server.webrtc.sctp_bounds import MAX_FRAGMENTS, MAX_STREAMS
from rtc_server.webrtc.transceivers import LeanPeerConnection

STRANGER: Final[Source] = ("198.51.100.66", 6666)
_SETTLE_TURNS: Final = 6
_MOST_CHUNKS_A_PACKET: Final = 100
_MOST_TASKS: Final = 200


class End:
    """One peer, seen from the network. ``heard``: what it has sent while it connected."""

    def __init__(self, pc: LeanPeerConnection) -> None:
        self.pc = pc
        self.heard: list[bytes] = []
        self.packets = 0
        self.records = 0

    @property
    def agent(self) -> IceConnection:
        (agent,) = self.pc._ice_connections()
        return agent

    @property
    def transport(self) -> Any:
        (transport,) = self.pc._dtls_transports()
        return transport

    @property
    def pair(self) -> Any:
        return self.agent._nominated[1]

    def put(self, datagram: bytes, source: Source) -> None:
        self.pair.protocol.datagram_received(datagram, source)

    def watch(self) -> None:
        """Count what gets through to the application."""
        self.pc.set_packet_sink(self._on_packet)
        receiver = self.transport._data_receiver
        handle = receiver._handle_data

        async def counted(data: bytes) -> None:
            self.records += 1
            await handle(data)

        receiver._handle_data = counted

    def refill(self) -> None:
        """Limits by the second are not what is tried."""
        for bucket in (
            *(self.agent.gate._datagrams, self.agent.gate._checks, self.agent.gate._strange_checks),
            *(self.transport._new_sources, self.transport._reports, self.transport._dtls),
            *(self.pc.sctp._data_chunks, self.pc.sctp._other_chunks),  # type: ignore[union-attr]
        ):
            bucket._tokens = float(bucket._burst)

    def _on_packet(self, codec: str, packet: object) -> None:
        self.packets += 1


class Wired:
    """``errors``: what reached the event loop, which would be lines of log."""

    def __init__(self) -> None:
        self.client, self.server = End(LeanPeerConnection(_no_servers())), End(LeanPeerConnection(_no_servers()))
        self.errors: list[str] = []
        self._sequence = 0

    @classmethod
    async def connected(cls) -> Self:
        wired = cls()
        await wired.connect()
        return wired

    async def connect(self) -> None:
        client, server = self.client.pc, self.server.pc
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.errors.append(str(context)))
        channel = client.createDataChannel("text")
        opened = asyncio.Event()
        channel.on("open", opened.set)
        client.addTransceiver("audio")
        await client.setLocalDescription(await client.createOffer())
        await server.setRemoteDescription(RTCSessionDescription(client.localDescription.sdp, "offer"))
        server.getTransceivers()[0].direction = "sendrecv"
        await server.setLocalDescription(await server.createAnswer())
        for end in (self.client, self.server):
            for protocol in [protocol for agent in end.pc._ice_connections() for protocol in agent._protocols]:
                protocol.transport = _Tap(protocol.transport, end.heard)  # type: ignore[assignment]
        await client.setRemoteDescription(RTCSessionDescription(server.localDescription.sdp, "answer"))
        await opened.wait()
        for end in (self.client, self.server):
            end.watch()

    async def close(self) -> None:
        await self.client.pc.close()
        await self.server.pc.close()

    def ends(self) -> Iterator[tuple[End, End]]:
        yield self.client, self.server
        yield self.server, self.client

    async def settle(self) -> None:
        """Until what was put in has been read."""
        for _ in range(_SETTLE_TURNS):
            await asyncio.sleep(0)

    def send_packet(self, one: End, other: End) -> None:
        """A packet of audio as ``one`` would send it."""
        self._sequence = (self._sequence + 1) % 2**16
        payload_type = next(iter(other.transport._rtp_router.payload_type_table))
        header = struct.pack("!BBHLL", 0x80, payload_type, self._sequence, self._sequence * 960, 77)
        other.put(one.transport._tx_srtp.protect(header + bytes(20)), other.pair.remote_addr)

    def send_record(self, one: End, other: End, plain: bytes) -> None:
        """A DTLS record as ``one`` would send it."""
        one.transport._ssl.send(plain)
        other.put(one.transport._ssl.bio_read(MAX_DATAGRAM_BYTES), other.pair.remote_addr)

    async def assert_lives(self) -> None:
        """Both ends are connected, take what the other sends, and hold little."""
        for one, other in self.ends():
            for end in (one, other):
                end.refill()
            packets, records = other.packets, other.records
            self.send_packet(one, other)
            self.send_record(one, other, b"\0")
            await self.settle()
            assert other.packets > packets, "audio does not get through"
            assert other.records > records, "data does not get through"
            assert other.pc.connectionState == "connected"
            self._assert_holds_little(other)
        assert len(asyncio.all_tasks()) < _MOST_TASKS
        assert self.errors == []
        if FAULTS.last is not None:
            raise FAULTS.last

    def _assert_holds_little(self, end: End) -> None:
        gate: Gate = end.agent.gate
        assert end.agent._queue.qsize() <= MAX_WAITING
        assert len(gate._proven) <= MAX_SOURCES
        assert len(gate._held) <= MAX_SOURCES
        assert all(len(held) <= MAX_HELD for held in gate._held.values())
        assert len([each for each in end.agent.remote_candidates if each.type == "prflx"]) <= MAX_SOURCES
        sctp: Any = end.pc.sctp
        assert len(sctp._inbound_streams) <= MAX_STREAMS + _MOST_CHUNKS_A_PACKET
        fragments = sum(len(stream.reassembly) for stream in sctp._inbound_streams.values())
        assert fragments <= MAX_FRAGMENTS + _MOST_CHUNKS_A_PACKET
        assert len(sctp._data_channels) <= MAX_CHANNELS


class _Tap:
    """A transport that keeps what is sent."""

    def __init__(self, transport: Any, heard: list[bytes]) -> None:
        self._transport = transport
        self._heard = heard

    def sendto(self, data: bytes, addr: Any = None) -> None:
        if len(self._heard) < 100:
            self._heard.append(data)
        self._transport.sendto(data, addr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _no_servers() -> RTCConfiguration:
    return RTCConfiguration(iceServers=[])
