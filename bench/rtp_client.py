"""A WebRTC client that measures: it sends a tape, packet by packet, and notes when each packet came back.

It encodes nothing and decodes nothing while the call runs, has no jitter buffer, and therefore adds no delay and
costs next to nothing. What the packets hold is looked at afterwards (``analysis.py``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import av
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import RtpPacket

from bench.dialects import DIALECTS
from bench.rtp_tap import tap
from bench.tape import PACKET_S, PACKET_SAMPLES, TIME_BASE, Decoder, SoundDecoder, Tape
from lab.network.sdp import Rewriter

LATE_S: Final = 0.1
"""A client that was held up for longer goes on from now: bursts would be its own doing, not the server's."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One received RTP packet, or a piece of sound that came otherwise. ``at``: monotonic seconds. ``timestamp``: at
    48 kHz."""

    at: float
    sequence: int
    timestamp: int
    payload: bytes


@dataclass(slots=True)
class CallLog:
    """Everything that is known of one call afterwards. Times are monotonic seconds.

    ``began_at``: before candidates were gathered; ``offered_at``: after it.

    ``sent[i]``: when the tape's packet ``i`` (counted over its turns) was handed to the transport. ``decoder``: makes
    one for the payloads of what arrived.
    """

    began_at: float = 0.0
    offered_at: float = 0.0
    answered_at: float = 0.0
    connected_at: float = 0.0
    sent: list[float] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    decoder: Callable[[], SoundDecoder] = Decoder


class TapeTrack(MediaStreamTrack):
    """Sends a tape in real time, over and over. ``drift_ppm``: by how much its clock runs fast."""

    kind = "audio"

    def __init__(self, tape: Tape, sent: list[float], drift_ppm: float = 0.0) -> None:
        super().__init__()
        self._tape = tape
        self._sent = sent
        self._packet_s = PACKET_S / (1 + drift_ppm * 1e-6)
        self._due: float | None = None

    async def recv(self) -> av.Packet[Any]:
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        if self._due is None or now - self._due > LATE_S:
            self._due = now
        if self._due > now:
            await asyncio.sleep(self._due - now)
        self._due += self._packet_s
        number = len(self._sent)
        packet = av.Packet(self._tape.packets[number % len(self._tape.packets)])
        packet.pts = number * PACKET_SAMPLES
        packet.time_base = TIME_BASE
        self._sent.append(time.monotonic())
        return packet


class RtpClient:
    """One call. ``hang_up`` must be called, whatever happened. ``relay``: a TURN server, and no other way than that."""

    def __init__(
        self, url: str, dialect: str, tape: Tape, drift_ppm: float = 0.0, relay: RTCIceServer | None = None
    ) -> None:
        self.log = CallLog()
        self._url = url.rstrip("/")
        self._dialect = DIALECTS[dialect]
        self._connected = asyncio.Event()
        self._pc = RTCPeerConnection(
            RTCConfiguration(
                iceServers=[relay] if relay else [],
                iceTransportPolicy=RTCIceTransportPolicy.RELAY if relay else RTCIceTransportPolicy.ALL,
                bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
            )
        )
        self._pc.addTrack(TapeTrack(tape, self.log.sent, drift_ppm))
        self._pc.createDataChannel(self._dialect.channel)
        self._pc.on("connectionstatechange", self._on_state)

    async def call(self, network: Rewriter | None = None, timeout_s: float = 20.0) -> None:
        """Offer, answer, connect. Raises TimeoutError, aiohttp.ClientError."""
        network = network or Rewriter()
        self.log.began_at = time.monotonic()
        await self._pc.setLocalDescription(await self._pc.createOffer())
        offer = network.rewrite_offer(self._pc.localDescription.sdp)
        for transceiver in self._pc.getTransceivers():
            tap(transceiver.receiver, self._on_packet)
        self.log.offered_at = time.monotonic()
        async with aiohttp.ClientSession(raise_for_status=True) as http:
            headers = {"Content-Type": self._dialect.content_type}
            body = self._dialect.body(offer)
            async with http.post(self._url + self._dialect.path, data=body, headers=headers) as response:
                answer = self._dialect.answer(await response.text())
            self.log.answered_at = time.monotonic()
        await self._pc.setRemoteDescription(RTCSessionDescription(network.rewrite(answer), "answer"))
        async with asyncio.timeout(timeout_s):
            await self._connected.wait()

    async def hang_up(self) -> None:
        await self._pc.close()

    @property
    def lost(self) -> bool:
        return self._pc.connectionState in ("closed", "failed")

    def _on_packet(self, at: float, packet: RtpPacket) -> None:
        self.log.arrivals.append(Arrival(at, packet.sequence_number, packet.timestamp, packet.payload))

    def _on_state(self) -> None:
        if self._pc.connectionState == "connected":
            self.log.connected_at = time.monotonic()
            self._connected.set()
