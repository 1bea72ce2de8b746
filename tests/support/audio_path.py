"""The whole way of a microphone's audio in virtual time: the server's packet receiver and microphone timeline (joined
as the Python client joins them), its playout buffer and packet clock, with a network before them and an engine between.
Samples carry their own number, so that the delay of each can be read off where it comes out."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.media.inbound import InboundStream, PacketReceiver
from rtc_server.media.jitter import JitterCounts
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.tracks import PacketClock

PACKET_S = audio.PACKET_MS / 1000
_TICKS = 960
_RTP_HZ = 48_000
_PATH_S = 0.020
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
    return _Run(network, seed, margin_ms, engine_s).run(seconds)


class _Run:
    def __init__(self, network: Network, seed: int, margin_ms: float, engine_s: Lateness) -> None:
        self._network = network
        self._random = random.Random(seed)
        self._engine_s = engine_s
        self._inbound = InboundStream(0.0, PacketReceiver(lambda _codec: NumberedDecoder()))
        self._clock: PacketClock | None = None
        self._playout = PlayoutBuffer(margin_ms)
        self._events: list[tuple[float, int, str, object]] = []
        self._order = 0
        self._out: list[tuple[float, np.ndarray]] = []
        self._poll_at: float | None = None
        self._frames = 0
        self._ends_at = 0.0

    def run(self, seconds: float) -> Heard:
        packets = int(seconds / PACKET_S)
        assert packets * audio.PACKET_SAMPLES < _SCALE, "more samples than there are numbers"
        self._ends_at = seconds
        for number in range(packets):
            sent = PACKET_S * (number + 1) / (1 + self._network.drift_ppm * 1e-6)
            if self._network.lost(sent, self._random):
                continue
            arrives = sent + _PATH_S + max(0.0, self._network.late_s(sent, self._random))
            self._at(arrives, "packet", number)
            if self._network.twice(sent, self._random):
                self._at(arrives + 0.003, "packet", number)
        while self._events:
            now, _, kind, value = heapq.heappop(self._events)
            getattr(self, f"_on_{kind}")(now, value)
            self._schedule_poll(now, seconds)
        return self._heard()

    def _at(self, when: float, kind: str, value: object) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, kind, value))

    def _schedule_poll(self, now: float, seconds: float) -> None:
        when = max(self._inbound.deadline, now + 1e-3)
        if (self._poll_at is None or when < self._poll_at) and when < seconds:
            self._poll_at = when
            self._at(when, "poll", None)

    def _on_packet(self, now: float, number: object) -> None:
        assert isinstance(number, int)
        sequence, timestamp = (number + 65_000) % 2**16, (number * _TICKS + 2**32 - 48_000) % 2**32
        self._feed(self._inbound.push("NUMBERED", 1, sequence, timestamp, b"%d" % number, now), now)

    def _on_poll(self, now: float, _: object) -> None:
        self._poll_at = None
        self._feed(self._inbound.poll(now), now)

    def _on_made(self, now: float, frame: object) -> None:
        assert isinstance(frame, np.ndarray)
        if self._clock is None:  # it starts with the first frame
            self._clock = PacketClock(now + self._playout.phase_s)
            self._wait_for_packet(self._clock, now)
        self._playout.push(frame, now)

    def _on_pull(self, now: float, clock: object) -> None:
        assert isinstance(clock, PacketClock)
        self._out.append((now, self._playout.pull(audio.PACKET_SAMPLES, now)[0]))
        if now < self._ends_at:
            self._wait_for_packet(clock, now)

    def _wait_for_packet(self, clock: PacketClock, now: float) -> None:
        _, wait_s = clock.next(now)
        self._at(now + wait_s, "pull", clock)

    def _feed(self, frames: list[audio.FloatArray], now: float) -> None:
        for frame in frames:
            self._frames += 1
            self._at(now + self._engine_s(now, self._random), "made", frame)

    def _heard(self) -> Heard:
        block = audio.PACKET_SAMPLES // 4
        at: list[float] = []
        delay: list[float] = []
        gaps: list[tuple[float, float]] = []
        silent = concealed = total = 0
        for now, pcm in self._out:
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
            self._inbound.receiver.counts,
            self._inbound.timeline.dropped,
            self._frames,
        )
