"""What a peer says: RTP packets in, frames of 80 ms at 24 kHz out, in order, at the pace of real time.

Joins a jitter buffer, a decoder and the microphone's timeline, and follows a peer that changes its codec. Pure; time
is an argument, in monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media.codecs import StreamRenderer, make_decoder
from rtc_server.media.jitter import Item, JitterBuffer
from rtc_server.media.microphone import MicrophoneTimeline


@dataclass(frozen=True, slots=True)
class InboundFigures:
    """Totals of one stream. ``concealed_ms`` stood in for what was lost or late; ``wait_ms`` is the jitter buffer's
    depth now; ``filled`` and ``dropped`` are frames of the timeline."""

    late: int = 0
    duplicate: int = 0
    undecodable: int = 0
    concealed_ms: float = 0.0
    played_ms: float = 0.0
    wait_ms: float = 0.0
    filled: int = 0
    dropped: int = 0


class _Codec:
    """One codec's jitter buffer and decoder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.decoder = make_decoder(name)
        self.renderer = StreamRenderer(self.decoder)
        self.jitter = JitterBuffer(self.decoder.clock_hz)

    def render(self, items: list[Item]) -> FloatArray:
        blocks = [self.renderer.render(item) for item in items]
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate(blocks) if blocks else audio.silence(0)


class InboundStream:
    """One peer's microphone."""

    def __init__(self, now: float) -> None:
        self._timeline = MicrophoneTimeline(now)
        self._codec: _Codec | None = None

    @property
    def muted(self) -> bool:
        """Muted, the frames are silence; time goes on."""
        return self._timeline.muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        self._timeline.muted = muted

    @property
    def running(self) -> bool:
        """Whether packets are being followed; if not, the frames are silence."""
        return self._codec is not None and self._codec.jitter.running

    @property
    def deadline(self) -> float:
        """When to call :meth:`poll` next."""
        waited_for = None if self._codec is None else self._codec.jitter.deadline
        return self._timeline.deadline if waited_for is None else waited_for

    def restart(self, now: float, patience_s: float = 0.0) -> None:
        """The peer has just connected: time starts with its first packet, or after ``patience_s``."""
        self._timeline.restart(now, patience_s)

    def push(
        self, codec: str, ssrc: int, sequence: int, timestamp: int, payload: bytes, now: float
    ) -> list[FloatArray]:
        """Take an RTP packet; returns the frames that are complete now."""
        if self._codec is None or self._codec.name != codec:
            self._codec = _Codec(codec)
        ticks = self._codec.decoder.ticks(payload)
        if ticks == 0:
            self._codec.renderer.undecodable += 1
            return []
        items = self._codec.jitter.push(ssrc, sequence, timestamp, ticks, payload, now)
        return self._timeline.push(self._codec.render(items), now)

    def poll(self, now: float) -> list[FloatArray]:
        """The frames that are due although packets are missing: concealed, or silent when none come at all."""
        if self._codec is not None and self._codec.jitter.running:
            return self._timeline.push(self._codec.render(self._codec.jitter.poll(now)), now)
        return self._timeline.poll(now)

    def figures(self) -> InboundFigures:
        """Counts of packets start anew when the peer changes its codec."""
        filled, dropped = self._timeline.filled, self._timeline.dropped
        if self._codec is None:
            return InboundFigures(filled=filled, dropped=dropped)
        counts, clock_hz = self._codec.jitter.counts, self._codec.decoder.clock_hz
        return InboundFigures(
            late=counts.late,
            duplicate=counts.duplicate,
            undecodable=self._codec.renderer.undecodable,
            concealed_ms=audio.samples_to_ms(counts.concealed_ticks, clock_hz),
            played_ms=audio.samples_to_ms(counts.played_ticks, clock_hz),
            wait_ms=self._codec.jitter.wait_ms,
            filled=filled,
            dropped=dropped,
        )
