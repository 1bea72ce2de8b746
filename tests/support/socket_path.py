"""The way of a microphone's audio through a WebSocket door in virtual time: what paces it, the microphone's
timeline, the model. Samples carry their own number, so that the delay of each can be read off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.media.microphone import MicrophoneTimeline
from rtc_server.media.paced import PacedAudio

_PIECE_S: Final = audio.PACKET_MS / 1000
_FEED_S: Final = 0.02
_SCALE: Final = 2**24
"""A sample is its number, from 1 on, divided by this: exact in float32, within ±1. Silence is 0."""


@dataclass(frozen=True, slots=True)
class Talker:
    """A client that talks for ``speaks_s``, pauses for ``pauses_s``, and so on, in messages of so many pieces of 20 ms.
    ``drift_ppm``: by how much its clock is fast. ``stall``: from when to when nothing of it arrives, until its end."""

    drift_ppm: float = 0.0
    pieces: int = 4
    speaks_s: float = 4.0
    pauses_s: float = 1.0
    stall: tuple[float, float] = (0.0, 0.0)

    def said(self, number: int) -> FloatArray:
        """One of its pieces."""
        if number * _PIECE_S % (self.speaks_s + self.pauses_s) >= self.speaks_s:
            return audio.silence(audio.PACKET_SAMPLES)
        first = number * audio.PACKET_SAMPLES + 1
        return (np.arange(first, first + audio.PACKET_SAMPLES) / _SCALE).astype(np.float32)

    def had_at(self, samples: np.ndarray) -> np.ndarray:
        """When its microphone had a sample, in seconds."""
        return samples / audio.MODEL_RATE_HZ / (1 + self.drift_ppm * 1e-6)

    def arrives_at(self, message: int) -> float:
        at = (message + 1) * self.pieces * _PIECE_S / (1 + self.drift_ppm * 1e-6)
        first, last = self.stall
        return last if first < at < last else at


@dataclass(frozen=True, slots=True)
class Heard:
    """Of each frame in which a voice is: when the model had it, and how long its newest sample had been under way."""

    at_s: np.ndarray
    delay_ms: np.ndarray
    dropped_frames: int
    filled_frames: int

    def delay(self, start_s: float, end_s: float) -> float:
        """Median, in ms."""
        return float(np.median(self.delay_ms[(self.at_s >= start_s) & (self.at_s < end_s)]))

    def worst_delay(self, start_s: float, end_s: float) -> float:
        return float(self.delay_ms[(self.at_s >= start_s) & (self.at_s < end_s)].max())


def talk_through(talker: Talker, seconds: float, paced: bool) -> Heard:
    """What the model hears of it. ``paced``: as OpenAI Realtime has it; OpenAI Live's and Moshi's doors give audio to
    the microphone's timeline as it comes."""
    pace, timeline = PacedAudio(0.0), MicrophoneTimeline(0.0)
    timeline.restart(0.0)
    at: list[float] = []
    newest: list[float] = []

    def hear(frames: list[FloatArray], now: float) -> None:
        for frame in frames:
            number = float(frame.max()) * _SCALE
            if number:
                at.append(now)
                newest.append(number)

    message, tick = 0, 0
    while True:
        now = min(talker.arrives_at(message), (tick + 1) * _FEED_S)
        if now >= seconds:
            break
        pieces: list[FloatArray] = []
        if now >= (tick + 1) * _FEED_S:
            tick += 1
            pieces = pace.poll(now)
        if now >= talker.arrives_at(message):
            first = message * talker.pieces
            pcm = np.concatenate([talker.said(first + piece) for piece in range(talker.pieces)])
            message += 1
            pieces += pace.push(pcm, now) if paced else [pcm]
        for piece in pieces:
            hear(timeline.push(piece, now), now)
        hear(timeline.poll(now), now)
    arrived = np.array(at)
    return Heard(arrived, (arrived - talker.had_at(np.array(newest))) * 1000, timeline.dropped, timeline.filled)
