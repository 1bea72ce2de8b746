"""What the measuring clients say: a sound, encoded once into 20 ms Opus packets, and its decoded twin.

The twin is what a perfect echo would give back: comparing with it leaves the client's own codec out of every
measured delay. Knows nothing of transports.
"""

from __future__ import annotations

import fractions
from dataclasses import dataclass
from typing import Final, Protocol

import av
import numpy as np
import numpy.typing as npt
import soxr

from lab.speech.clips import SPEECH_HZ, speak
from rtc_server import audio

FloatArray = npt.NDArray[np.float32]

OPUS_HZ: Final = 48_000
PACKET_SAMPLES: Final = OPUS_HZ * 20 // 1000
PACKET_S: Final = PACKET_SAMPLES / OPUS_HZ
ANALYSIS_HZ: Final = 8_000
"""Enough for telling where in the tape a sound comes from; both signals are strongest below 4 kHz."""
TIME_BASE: Final = fractions.Fraction(1, OPUS_HZ)

_BITRATE: Final = 32_000
_LOUD: Final = 0.1
_EXPECTED_LOSS_PERCENT: Final = 10
"""A browser tells its encoder what the receiver reports; with less than a few percent libopus sends no FEC."""

_SENTENCES: Final = (
    "The quick brown fox jumps over the lazy dog while seven wizards brew strong black coffee.",
    "A full duplex model listens while it speaks, so nobody has to wait for a turn.",
    "Every packet that is lost on the way leaves a hole of twenty milliseconds in a word.",
    "My grandmother keeps bees behind the old railway station and sells the honey in June.",
    "On Thursday the ferry to the islands leaves at a quarter past nine from the northern pier.",
    "Please remember to bring the blue umbrella, three oranges and a map of the harbour.",
    "Engineers measured the delay from mouth to ear again and again until it stopped growing.",
    "Nothing is as loud as the silence after somebody has dropped a tray of glasses.",
)


@dataclass(frozen=True, slots=True)
class Tape:
    """``packets``: played in a loop. ``twin``: mono float32 at :data:`ANALYSIS_HZ`, one turn of the loop as a
    client hears it that is sent its own packets back. ``pcm``: that twin for a client that sends no packets, of each
    the 16 bits at 24 kHz. ``marks``: places in the twin that matter."""

    name: str
    packets: tuple[bytes, ...]
    twin: FloatArray
    pcm: tuple[bytes, ...]
    marks: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.packets) * PACKET_S


def speech_tape() -> Tape:
    """Half a minute of sentences, no two alike. Needs espeak-ng: raises FileNotFoundError without."""
    assert SPEECH_HZ == OPUS_HZ
    pcm = np.concatenate([speak(sentence) for sentence in _SENTENCES])
    # It begins at once, so that the time to a call's first audio is not the speaker's.
    return record("speech", pcm[int(np.argmax(np.abs(pcm) > _LOUD)) :])


def warble_tape(seconds: float = 30.0, seed: int = 1) -> Tape:
    """A tone of constant loudness whose pitch wanders at random between 250 and 2,500 Hz: every 10 ms of it are
    audible, and no two places in it sound alike."""
    rng = np.random.default_rng(seed)
    steps = int(seconds * 25)
    octaves = np.interp(np.arange(int(seconds * OPUS_HZ)) / OPUS_HZ * 25, np.arange(steps), rng.uniform(0, 3.32, steps))
    phase = 2 * np.pi * np.cumsum(250 * 2**octaves) / OPUS_HZ
    return record("warble", (0.3 * np.sin(phase)).astype(np.float32))


def make_tape(name: str) -> Tape:
    return {"speech": speech_tape, "warble": warble_tape}[name]()


def record(name: str, pcm: FloatArray, marks: tuple[int, ...] = ()) -> Tape:
    """``pcm``: mono at 48 kHz."""
    packets = encode(pcm)
    # Two turns, of which the second is kept: in a loop, the decoder never starts afresh.
    heard = Decoder().decode_all([*packets, *packets])
    twin = to_analysis_rate(heard)[-len(packets) * ANALYSIS_HZ // 50 :]
    return Tape(name, tuple(packets), twin, _as_pcm(heard, len(packets)), marks)


def _as_pcm(heard: FloatArray, packets: int) -> tuple[bytes, ...]:
    """The last so many packets' worth."""
    pcm = audio.to_int16(soxr.resample(heard, OPUS_HZ, audio.MODEL_RATE_HZ)).astype("<i2")
    return tuple(piece.tobytes() for piece in pcm.reshape(-1, audio.PACKET_SAMPLES)[-packets:])


def encode(pcm: FloatArray) -> list[bytes]:
    """Mono float32 at 48 kHz as 20 ms Opus packets, set up as a browser's encoder is for speech."""
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate = OPUS_HZ
    codec.layout = "mono"
    codec.format = "s16"
    codec.bit_rate = _BITRATE
    codec.time_base = TIME_BASE
    codec.options = {
        "application": "voip",
        "frame_duration": "20",
        "fec": "1",
        "packet_loss": str(_EXPECTED_LOSS_PERCENT),
    }
    samples = (np.clip(pcm, -1, 1) * 32767).astype(np.int16)
    packets: list[bytes] = []
    for start in range(0, samples.size - PACKET_SAMPLES + 1, PACKET_SAMPLES):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + PACKET_SAMPLES], format="s16", layout="mono")
        frame.sample_rate = OPUS_HZ
        frame.time_base = TIME_BASE
        frame.pts = start
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return packets


class SoundDecoder(Protocol):
    """Payloads of one stream in, mono float32 at 48 kHz out."""

    def decode(self, payload: bytes) -> FloatArray: ...


class Decoder:
    """One stream's Opus decoder: packets in, mono float32 at 48 kHz out. Conceals nothing."""

    def __init__(self) -> None:
        codec = av.CodecContext.create("libopus", "r")
        assert isinstance(codec, av.AudioCodecContext)
        codec.sample_rate = OPUS_HZ
        codec.layout = "mono"
        codec.format = "s16"
        self._codec = codec

    def decode(self, payload: bytes) -> FloatArray:
        """Empty for what is not Opus."""
        try:
            frames = self._codec.decode(av.Packet(payload))
        except av.error.FFmpegError:
            return np.zeros(0, dtype=np.float32)
        blocks = [frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1) for frame in frames]
        return (np.concatenate(blocks) / 32768).astype(np.float32) if blocks else np.zeros(0, dtype=np.float32)

    def decode_all(self, payloads: list[bytes]) -> FloatArray:
        return np.concatenate([self.decode(payload) for payload in payloads])


def to_analysis_rate(pcm: FloatArray) -> FloatArray:
    """48 kHz to :data:`ANALYSIS_HZ`, without a delay."""
    return np.asarray(soxr.resample(pcm, OPUS_HZ, ANALYSIS_HZ), dtype=np.float32)
