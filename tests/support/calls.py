"""Clients for the integration tests: with tracks of their own, bare peer connections, and a good one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from lab.sound.tones import TONE_LEVEL, VOICED_DBFS, Ear, tone
from rtc_server.audio import MODEL_RATE_HZ, PACKET_MS, PACKET_SAMPLES
from rtc_server.client import VoiceClient
from rtc_server.media.opus import PACKET_TICKS, RTP_TIME_BASE, make_encoder
from rtc_server.protocols.events import CHANNEL_LABEL
from tests.support.listening import pump


def text_of(client: VoiceClient) -> str:
    """What the model has written."""
    return "".join(event["delta"] for event in client.events if event["type"] == "text").strip()


class TapeTrack(MediaStreamTrack):
    """One second of a tone, encoded once and sent over and over: a client that costs next to nothing.

    ``hz`` is a whole number, so that the tape has no seam but the codec's. Nothing is sent before ``start`` is set.
    """

    kind = "audio"

    def __init__(self, hz: int, start: asyncio.Event | None = None) -> None:
        super().__init__()
        self._start = start
        encoder = make_encoder(32_000)
        phase = 2 * np.pi * hz * np.arange(MODEL_RATE_HZ) / MODEL_RATE_HZ
        blocks = (TONE_LEVEL * np.sin(phase)).astype(np.float32).reshape(-1, PACKET_SAMPLES)
        self._tape = [encoder.encode(block) for block in blocks]
        self._number = 0
        self._started_at: float | None = None

    async def recv(self) -> av.Packet[Any]:
        if self.readyState != "live":
            raise MediaStreamError
        if self._start is not None:
            await self._start.wait()
        now = time.monotonic()
        self._started_at = self._started_at or now
        await asyncio.sleep(max(0.0, self._started_at + self._number * PACKET_MS / 1000 - now))
        packet = av.Packet(self._tape[self._number % len(self._tape)])
        packet.pts = self._number * PACKET_TICKS
        packet.time_base = RTP_TIME_BASE
        self._number += 1
        return packet


class MuteTrack(MediaStreamTrack):
    """A microphone that never yields anything."""

    kind = "audio"

    async def recv(self) -> av.AudioFrame:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nothing resolves it")


def track_client(url: str, track: MediaStreamTrack, **arguments: Any) -> VoiceClient:
    """A client that sends a track of its own; connects as any other."""
    client = VoiceClient(url, None, **arguments)
    client.pc.addTrack(track)
    return client


def prefer_codec(client: VoiceClient, mime_type: str) -> None:
    """Offer this codec and no other."""
    (transceiver,) = client.pc.getTransceivers()
    known = type(transceiver.sender).getCapabilities("audio").codecs
    transceiver.setCodecPreferences([codec for codec in known if codec.mimeType.lower() == mime_type.lower()])


@contextlib.asynccontextmanager
async def offering(*, audio: bool = True, video: bool = False, channel: bool = True) -> AsyncIterator[dict[str, Any]]:
    """A good offer's body, of a client that will never connect."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        if audio:
            pc.addTransceiver("audio")
        if video:
            pc.addTransceiver("video")
        if channel:
            pc.createDataChannel(CHANNEL_LABEL)
        await pc.setLocalDescription(await pc.createOffer())
        yield {"sdp": pc.localDescription.sdp, "type": "offer"}
    finally:
        await pc.close()


async def assert_serves(url: str, service: str | None = None) -> None:
    """A good client is served as if nothing had happened: it hears itself."""
    ear = Ear()
    async with VoiceClient(url, tone(500), service=service, on_voice=ear) as client:
        await client.wait_for("connected")
        await ear.until_level(above=VOICED_DBFS, window_s=0.04)
        client.send({"type": "bye"})
        await client.wait_for("disconnected", reason="bye")


@contextlib.asynccontextmanager
async def connected(url: str, pc: RTCPeerConnection, **fields: Any) -> AsyncIterator[str]:
    """A bare peer connection in conversation with a server; gives the answer's SDP."""
    try:
        await pc.setLocalDescription(await pc.createOffer())
        body = {"sdp": pc.localDescription.sdp, "type": "offer", **fields}
        async with aiohttp.ClientSession() as http, http.post(f"{url}/api/offer", json=body) as response:
            answer = await response.json()
            assert response.status == 201, answer
        await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        yield answer["sdp"]
    finally:
        await pc.close()


async def listen(track: MediaStreamTrack, ear: Ear) -> None:
    """Give an ear what a bare peer connection receives."""
    with contextlib.suppress(MediaStreamError):
        await pump(track, ear)


async def get_json(url: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, json.loads(await response.text())


async def stats_of(url: str, client: VoiceClient) -> dict[str, int]:
    """The figures of its session, as the server at ``url`` tells them."""
    _, body = await get_json(f"{url}/api/sessions/{client.session}")
    return body["stats"]  # type: ignore[no-any-return]
