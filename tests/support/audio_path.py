"""The whole way of a microphone's audio in virtual time: a session with its WebRTC connection, its track and its client
of an engine, as the server joins them. Only what lies outside is played: the network, the WebRTC stack, a codec and the
engine itself. Samples carry their own number, so that the delay of each can be read off where it comes out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from aiortc.mediastreams import MediaStreamError

from lab.inputs.offers import RECORDED
from rtc_server import audio
from rtc_server.access.principals import ANONYMOUS, Visitor
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.link import OnExit, OnMessage
from rtc_server.engine.messages import Frame, FromEngine, Open, Opened, Output, Ping, Pong, Ready, StepDone, ToEngine
from rtc_server.engine.model import ModelInfo, ServiceKind
from rtc_server.media.jitter import JitterCounts
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import OfferOptions
from rtc_server.protocols.offer import read_offer
from rtc_server.sessions.captioner import Captioners
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason, SessionId
from rtc_server.system.wheel import Wheel
from rtc_server.tracks import EncodedTrack
from rtc_server.webrtc.connection import Connection, Parts
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.peer import PeerStats
from rtc_server.webrtc.rtp_packet import Packet
from tests.support.virtual_time import run_in_virtual_time

PACKET_S = audio.PACKET_MS / 1000
_TICKS = 960
_RTP_HZ = 48_000
_PATH_S = 0.020
_PACKETS_AHEAD: Final = 50
"""Handed to the loop at a time, a second before they are sent: with few timers it is quicker."""
_SCALE: Final = 2**24
"""A sample is its number, from 1 on, divided by this: exact in float32, within ±1. Silence is 0."""
_LOST: Final = -0.5
"""Value of samples that stand in for lost ones."""

Chance = Callable[[float, random.Random], bool]
Lateness = Callable[[float, random.Random], float]


class NumberedDecoder:
    """A codec whose packets hold no more than their number: its samples are numbered on."""

    clock_hz = _RTP_HZ

    def ticks(self, payload: bytes) -> int:
        return _TICKS

    def decode(self, payload: bytes) -> FloatArray:
        first = int(payload) * audio.PACKET_SAMPLES + 1
        return (np.arange(first, first + audio.PACKET_SAMPLES) / _SCALE).astype(np.float32)

    def conceal(self, ticks: int, after: bytes | None) -> FloatArray:
        return np.full(ticks * audio.MODEL_RATE_HZ // _RTP_HZ, _LOST, dtype=np.float32)


class PlainEncoder:
    """Its packets are the samples as they are."""

    def encode(self, pcm: FloatArray) -> bytes:
        return pcm.tobytes()

    def set_expected_loss(self, percent: int) -> None:
        pass

    def set_bitrate(self, bitrate: int) -> None:
        pass

    def set_dtx(self, on: bool) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Network:
    """What happens to the packet that is sent at a time: lost, late by so many seconds, sent twice."""

    lost: Chance = lambda _t, _r: False
    late_s: Lateness = lambda _t, _r: 0.0
    twice: Chance = lambda _t, _r: False
    drift_ppm: float = 0.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came out. ``at_s`` and ``delay_ms`` are of each 5 ms of real audio; ``gaps``: (when, ms) of silence."""

    at_s: np.ndarray
    delay_ms: np.ndarray
    gaps: list[tuple[float, float]]
    concealed_share: float
    jitter: JitterCounts
    dropped_frames: int
    frames_to_model: int

    def delay(self, start_s: float, end_s: float) -> float:
        """Median delay in a stretch of time, in ms."""
        return float(np.median(self.delay_ms[(self.at_s >= start_s) & (self.at_s < end_s)]))

    def worst_delay(self, start_s: float, end_s: float) -> float:
        return float(self.delay_ms[(self.at_s >= start_s) & (self.at_s < end_s)].max())

    def longest_gap(self, start_s: float = 1.0) -> float:
        return max((ms for at, ms in self.gaps if at >= start_s), default=0.0)


def send_through(
    network: Network,
    seconds: float,
    *,
    seed: int = 0,
    margin_ms: float = Settings().playout_margin_ms,
    engine_s: Lateness = lambda _t, _r: 0.002,
) -> Heard:
    """A microphone that talks without a pause for ``seconds``, and what a listener hears of it."""
    return run_in_virtual_time(_Run(network, seed, margin_ms, engine_s).run(seconds))


class StackPeer:
    """In the place of the WebRTC stack: takes the track's packets as they are due, with the time at which each leaves.
    Arguments: see :class:`rtc_server.webrtc.peer.Peer`."""

    def __init__(self, listener: Connection, offer: object, voice: EncodedTrack, *_: object) -> None:
        self.sent: list[tuple[float, FloatArray]] = []
        self._voice = voice
        self._looks = 0
        self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                packet = await self._voice.next_packet()
                assert packet is not None, "the encoder makes no pauses"
                self.sent.append((loop.time(), np.frombuffer(packet[0], np.float32)))
        except MediaStreamError:
            pass

    def send(self, message: str) -> bool:
        return True

    def stats(self) -> PeerStats:
        self._looks += 1
        return PeerStats(answers=self._looks)  # it is there

    async def close(self, flush: bool) -> None:
        self._voice.stop()
        await self._sending


class EchoLink:
    """An engine that gives each frame back after ``engine_s``. In the event loop, so that its time is the loop's."""

    pid = 0

    def __init__(self, engine_s: Callable[[], float]) -> None:
        self._engine_s = engine_s

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        self._on_message, self._on_exit = on_message, on_exit
        self._tell(Ready(ModelInfo("parrot", ServiceKind.ECHO, 1, "cpu", speaks=True, writes=False)))

    def send(self, message: ToEngine) -> bool:
        match message:
            case Open(stream):
                self._tell(Opened(stream, 0, 1))
            case Frame(slot, generation, seq, pcm):
                done = StepDone(0.002, 0, [Output(slot, generation, seq, pcm, "")])
                asyncio.get_running_loop().call_later(self._engine_s(), self._on_message, done)
            case Ping():
                self._tell(Pong())
            case _:
                pass
        return True

    async def close(self) -> None:
        self._on_exit()

    def _tell(self, message: FromEngine) -> None:
        asyncio.get_running_loop().call_soon(self._on_message, message)


class _Run:
    def __init__(self, network: Network, seed: int, margin_ms: float, engine_s: Lateness) -> None:
        self._network = network
        self._random = random.Random(seed)
        self._engine_s = engine_s
        self._settings = Settings(model="echo", playout_margin_ms=margin_ms, vad="off")
        self._began_at = 0.0

    async def run(self, seconds: float) -> Heard:
        packets = int(seconds / PACKET_S)
        assert packets * audio.PACKET_SAMPLES < _SCALE, "more samples than there are numbers"
        engine = EngineClient("echo", lambda: EchoLink(self._make_s), Metrics())
        engine.start()
        await engine.wait_settled()
        session, connection, peer = await self._session(engine)
        for first in range(0, packets, _PACKETS_AHEAD):
            for number in range(first, min(first + _PACKETS_AHEAD, packets)):
                self._send(connection, number)
            if first:
                await asyncio.sleep(_PACKETS_AHEAD * PACKET_S)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._began_at + seconds + 5 * PACKET_S - loop.time())  # the last ones are under way
        frames = session._stats.frames_in
        await session.end(EndReason.BYE)
        await engine.close()
        sent = [(at - self._began_at, pcm) for at, pcm in peer.sent]
        return heard(sent, connection._receiver.counts, session.user_audio.microphone.dropped, frames)

    async def _session(self, engine: EngineClient) -> tuple[Session, Connection, StackPeer]:
        """One that has just connected."""
        loop = asyncio.get_running_loop()
        self._began_at = loop.time()
        peers: list[StackPeer] = []

        def make_peer(*arguments: Any) -> Any:
            peers.append(StackPeer(*arguments))
            return peers[-1]

        session_id, wheel = SessionId("0", 0), Wheel(loop.time)
        visitor, metrics = Visitor(ANONYMOUS, "192.0.2.1"), Metrics()
        session = Session(
            session_id,
            engine,
            OfferOptions(),
            self._settings,
            metrics,
            visitor,
            False,
            None,
            Captioners(metrics),
            lambda _: None,
            wheel,
        )
        await session.open()
        offer = read_offer(next(iter(RECORDED.values())))
        parts = Parts(wheel, make_peer, lambda _codec: NumberedDecoder(), lambda _bitrate, _complexity: PlainEncoder())
        connection = Connection(session, offer, self._settings, MediaAddresses(), session_id.log_id, parts=parts)
        session.attach(connection)
        session.start()
        connection.on_connected()
        return session, connection, peers[0]

    def _send(self, connection: Connection, number: int) -> None:
        """The microphone's packet of this number goes through the network."""
        sent = PACKET_S * (number + 1) / (1 + self._network.drift_ppm * 1e-6)
        if self._network.lost(sent, self._random):
            return
        arrives = sent + _PATH_S + max(0.0, self._network.late_s(sent, self._random))
        packet = Packet(
            payload_type=96,
            sequence_number=(number + 65_000) % 2**16,
            timestamp=(number * _TICKS + 2**32 - 48_000) % 2**32,
            ssrc=1,
            payload=b"%d" % number,
        )
        twice = (0.0, 0.003) if self._network.twice(sent, self._random) else (0.0,)
        for later in twice:
            asyncio.get_running_loop().call_at(
                self._began_at + arrives + later, connection.on_packet, "NUMBERED", packet
            )

    def _make_s(self) -> float:
        return self._engine_s(asyncio.get_running_loop().time() - self._began_at, self._random)


def heard(sent: list[tuple[float, FloatArray]], jitter: JitterCounts, dropped_frames: int, frames: int) -> Heard:
    """What the numbers of the samples tell. ``sent``: packets of voice, with the time at which each left."""
    block = audio.PACKET_SAMPLES // 4
    at: list[float] = []
    delay: list[float] = []
    gaps: list[tuple[float, float]] = []
    silent = concealed = total = 0
    for now, pcm in sent:
        for start in range(0, audio.PACKET_SAMPLES, block):
            value = float(pcm[start]) * (_SCALE if pcm[start] > 0 else 1)
            total += 1
            concealed += value < 0
            if value == 0.0:
                silent += 1
                continue
            if silent:
                gaps.append((now, silent * audio.PACKET_MS / 4))
                silent = 0
            if value > 0:
                when = now + start / audio.MODEL_RATE_HZ
                at.append(when)
                delay.append((when - (value - 1) / audio.MODEL_RATE_HZ) * 1000)
    return Heard(
        np.array(at),
        np.array(delay),
        gaps,
        concealed / total,
        jitter,
        dropped_frames,
        frames,
    )
