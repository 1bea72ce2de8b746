"""Receives a peer's audio: RTP packets in; samples at 24 kHz in order out, and frames of 80 ms at the pace of real
time.

Joins a jitter buffer and a decoder (:class:`PacketReceiver`), and those with a microphone's timeline
(:class:`InboundStream`). Follows a peer that changes its codec. Pure; time is an argument, in monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media.codecs import PacketDecoder, StreamRenderer, make_decoder
from rtc_server.media.jitter import Item, JitterBuffer, JitterCounts
from rtc_server.media.microphone import MicrophoneTimeline
from rtc_server.system.rate_limit import TokenBucket

MAX_PACE: Final = 4.0
"""Seconds of audio that are decoded in a second. A microphone has one, or two on a network that sends all of it twice.
A thousand packets of 120 ms would be two minutes, which take half a core."""
BURST_MS: Final = 10_000
"""What may come at once beyond that, after an outage."""
_CODEC_MS: Final = 100
"""Of audio: what takes as long to decode as it takes to make another codec's decoder."""


@dataclass(frozen=True, slots=True)
class ReceiverFigures:
    """Totals of one receiver. ``late``: or more than is decoded in their time; ``concealed_ms`` stood in for what was
    lost or late; ``wait_ms`` is the jitter buffer's depth now."""

    late: int = 0
    duplicate: int = 0
    undecodable: int = 0
    concealed_ms: float = 0.0
    played_ms: float = 0.0
    wait_ms: float = 0.0


class _Codec:
    """One codec's jitter buffer and decoder."""

    def __init__(self, name: str, decoder: PacketDecoder) -> None:
        self.name = name
        self.decoder = decoder
        self.renderer = StreamRenderer(self.decoder)
        self.jitter = JitterBuffer(self.decoder.clock_hz)
        self.surplus = 0

    def render(self, items: list[Item]) -> FloatArray:
        blocks = [self.renderer.render(item) for item in items]
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate(blocks) if blocks else audio.silence(0)


class PacketReceiver:
    """The packets of one peer, decoded. ``make_decoder``: of a codec, by its name."""

    def __init__(self, make_decoder: Callable[[str], PacketDecoder] = make_decoder) -> None:
        self._make_decoder = make_decoder
        self._codec: _Codec | None = None
        self._decoded_ms = TokenBucket(MAX_PACE * 1000, BURST_MS, -math.inf)

    @property
    def running(self) -> bool:
        """Whether packets are being followed: what is missing is concealed by :meth:`poll`."""
        return self._codec is not None and self._codec.jitter.running

    @property
    def deadline(self) -> float | None:
        """When to call :meth:`poll` next; None while no packet is waited for."""
        return None if self._codec is None else self._codec.jitter.deadline

    def push(
        self, codec: str, ssrc: int, sequence: int, timestamp: int, payload: bytes, now: float
    ) -> FloatArray | None:
        """Take an RTP packet; returns the samples whose turn it is now, maybe none. None for a packet that holds
        nothing that could be decoded, or more than there is time to."""
        if self._codec is None or self._codec.name != codec:
            if not self._decoded_ms.allow(now, _CODEC_MS):
                return None
            self._codec = _Codec(codec, self._make_decoder(codec))
        ticks = self._codec.decoder.ticks(payload)
        if ticks == 0:
            self._codec.renderer.undecodable += 1
            return None
        if not self._decoded_ms.allow(now, audio.samples_to_ms(ticks, self._codec.decoder.clock_hz)):
            self._codec.surplus += 1
            return None
        return self._codec.render(self._codec.jitter.push(ssrc, sequence, timestamp, ticks, payload, now))

    def poll(self, now: float) -> FloatArray:
        """The samples that are due although packets are missing."""
        return audio.silence(0) if self._codec is None else self._codec.render(self._codec.jitter.poll(now))

    @property
    def counts(self) -> JitterCounts:
        """Of the jitter buffer, since the peer last changed its codec."""
        return JitterCounts() if self._codec is None else self._codec.jitter.counts

    def figures(self) -> ReceiverFigures:
        """Counts start again when the peer changes its codec."""
        if self._codec is None:
            return ReceiverFigures()
        counts, clock_hz = self._codec.jitter.counts, self._codec.decoder.clock_hz
        return ReceiverFigures(
            late=counts.late + self._codec.surplus,
            duplicate=counts.duplicate,
            undecodable=self._codec.renderer.undecodable,
            concealed_ms=audio.samples_to_ms(counts.concealed_ticks, clock_hz),
            played_ms=audio.samples_to_ms(counts.played_ticks, clock_hz),
            wait_ms=self._codec.jitter.wait_ms,
        )


class InboundStream:
    """One peer's microphone: a receiver, and the timeline that its samples fill."""

    def __init__(self, now: float, receiver: PacketReceiver | None = None) -> None:
        self.receiver = receiver or PacketReceiver()
        self.timeline = MicrophoneTimeline(now)

    @property
    def deadline(self) -> float:
        """When to call :meth:`poll` next."""
        waited_for = self.receiver.deadline
        return self.timeline.deadline if waited_for is None else waited_for

    def restart(self, now: float, patience_s: float = 0.0) -> None:
        """The peer has just connected: time starts with its first packet, or after ``patience_s``."""
        self.timeline.restart(now, patience_s)

    def push(
        self, codec: str, ssrc: int, sequence: int, timestamp: int, payload: bytes, now: float
    ) -> list[FloatArray]:
        """Take an RTP packet; returns the frames that are complete now."""
        pcm = self.receiver.push(codec, ssrc, sequence, timestamp, payload, now)
        return [] if pcm is None else self.timeline.push(pcm, now)

    def poll(self, now: float) -> list[FloatArray]:
        """The frames that are due although packets are missing: concealed, or silent when none come at all."""
        if self.receiver.running:
            return self.timeline.push(self.receiver.poll(now), now)
        return self.timeline.poll(now)
