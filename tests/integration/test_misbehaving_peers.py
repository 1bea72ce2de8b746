"""A client that has connected and then sends anything, with the keys that it has: it costs its own call at most."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiortc
import pytest
from google_crc32c import value as crc32c

from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.webrtc.data_transport import MAX_CHANNELS
from rtc_server.webrtc.media_transport import MAX_SOURCES
from tests.conftest import running_server
from tests.support.leftovers import leaves_nothing
from tests.support.nat import agents_of, peer_of, url_of
from tests.webrtc.test_sctp_bounds import data, packet, raw, sack

pytestmark = pytest.mark.slow


def transports_of(server: Server) -> list[Any]:
    return [transport for call in server.registry for transport in peer_of(call)._dtls_transports()]


@contextlib.asynccontextmanager
async def call_of() -> AsyncIterator[tuple[Server, VoiceClient, Ear]]:
    """A call that is heard."""
    ear = Ear()
    async with (
        running_server("--model", "echo") as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440), on_voice=ear) as client,
    ):
        await client.wait_for("connected")
        await ear.until_voice()
        yield server, client, ear


async def assert_goes_on(client: VoiceClient, ear: Ear, identity: object) -> None:
    client.send({"type": "ping", "id": identity})
    await client.wait_for("pong", id=identity)
    await ear.hear(0.1)
    await ear.until_voice()


async def test_sources_without_end(caplog: pytest.LogCaptureFixture) -> None:
    """In RTP and in RTCP: libsrtp would look through all of them for each packet."""
    async with call_of() as (server, client, ear):
        (theirs,), (ours,) = client.pc._dtls_transports(), transports_of(server)
        for number in range(4000):
            if number % 2:
                await theirs._send_rtp(struct.pack("!BBHLL", 0x80, 96, 1, 1, number) + bytes(20))
            else:
                await theirs._send_rtp(struct.pack("!BBHL", 0x80, 201, 1, number))
            if number % 10 == 0:
                await asyncio.sleep(0.01)
            assert len(ours._sources) <= MAX_SOURCES
        receiver = ours._rtp_router.receivers.copy().pop()
        assert len(receiver._RTCRtpReceiver__remote_streams) <= MAX_SOURCES
        assert len(ours._rtp_router.ssrc_table) <= MAX_SOURCES + 1
        await until(lambda: agents_of(server)[0]._queue.qsize() == 0, "the end of the flood")
        await assert_goes_on(client, ear, "after")
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def hostile_sctp(chance: random.Random, next_tsn: int, tag: int) -> Iterator[bytes]:
    """Packets whose checksum and tag are right."""
    for kind in (1, 2, 4, 5, 6, 9, 130):
        if kind == 6:
            continue  # an abort ends the association, as it should
        yield mended(packet(raw(kind, bytes(16) + struct.pack("!HH", 7, 0) + bytes(8))), tag)
    for _ in range(50):
        yield mended(packet(sack(*[(1, 65_535)] * 200)), tag)
    for number in range(300):
        chunk = data(text=b"x")
        chunk.tsn, chunk.stream_id, chunk.flags = (next_tsn + 2 + number * 7) % 2**32, number * 5, 2
        yield mended(packet(chunk), tag)
    for _ in range(300):
        yield mended(packet(raw(chance.choice([3, 4, 5, 9, 10, 11, 15, 64, 130, 192]), chance.randbytes(24))), tag)


def mended(made: bytes, tag: int) -> bytes:
    body = made[12:]
    header = struct.pack("!HHL", 5000, 5000, tag)
    return header + struct.pack("<L", crc32c(header + bytes(4) + body)) + body


async def test_sctp_of_any_kind(caplog: pytest.LogCaptureFixture) -> None:
    """The voice goes on; what becomes of the data channel is the client's affair."""
    async with call_of() as (server, client, ear):
        sctp = client.pc.sctp
        assert sctp is not None
        (theirs,) = client.pc._dtls_transports()
        (call,) = server.registry
        ours = peer_of(call).sctp
        assert ours is not None
        tag = sctp._remote_verification_tag
        for number, made in enumerate(hostile_sctp(random.Random(1), ours._last_received_tsn or 0, tag)):
            await theirs._send_data(made)
            if number % 10 == 0:
                await asyncio.sleep(0.02)
        heard = ear.samples
        await until(lambda: ear.samples > heard + 4800, "the voice")
        await ear.until_voice()
        assert sum(len(each.reassembly) for each in ours._inbound_streams.values()) < 400
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_channels_without_end() -> None:
    async with call_of() as (server, client, ear):
        (call,) = server.registry
        ours = peer_of(call).sctp
        assert ours is not None
        for number in range(200):
            client.pc.createDataChannel(f"{number}")
            await asyncio.sleep(0.002)
            assert len(ours._data_channels) <= MAX_CHANNELS
        await assert_goes_on(client, ear, "after")


MESSAGES: list[Callable[[Any], Any]] = [
    lambda sctp: sctp._send(1, 51, b"\xff\xfe"),
    lambda sctp: sctp._send(0, 51, b"\xff\xfe"),
    lambda sctp: sctp._send(0, 50, b"\x02"),
    lambda sctp: sctp._send(0, 50, b"\x03" + bytes(11)),
    lambda sctp: sctp._send(7, 50, b"\x02"),
    lambda sctp: sctp._send(9, 50, b"\x03" + bytes(7) + b"\xff\xff\xff\xff" + b"\xff"),
    lambda sctp: sctp._send(0, 53, bytes(60_000)),
    lambda sctp: sctp._send(0, 999, b"x"),
]


async def test_messages_of_any_kind(caplog: pytest.LogCaptureFixture) -> None:
    async with call_of() as (_server, client, ear):
        assert isinstance(client.pc.sctp, aiortc.RTCSctpTransport)
        for number, send in enumerate(MESSAGES):
            await send(client.pc.sctp)
            await assert_goes_on(client, ear, number)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
