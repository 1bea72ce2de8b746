"""Rates, frame sizes, framing, resampling and levels: all that is plain sound.

Pure: no IO, no clock, no codec. Rates and sizes of the whole project are defined here, once.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

FloatArray = npt.NDArray[np.float32]

MODEL_RATE_HZ: Final = 24_000
"""Sample rate of Mimi and of every Kyutai model."""
FRAME_MS: Final = 80
"""One model step: Mimi runs at 12.5 frames a second."""
FRAME_SAMPLES: Final = MODEL_RATE_HZ * FRAME_MS // 1000
PACKET_MS: Final = 20
"""Length of an outbound RTP packet; what browsers send and expect (RFC 7587, section 4.2)."""
PACKET_SAMPLES: Final = MODEL_RATE_HZ * PACKET_MS // 1000
SILENCE_DBFS: Final = -100.0
"""What a level reads for digital silence; log of zero has no better answer."""
_LEAST_POWER: Final = 10 ** (SILENCE_DBFS / 10)


def ms_to_samples(ms: float, rate_hz: int = MODEL_RATE_HZ) -> int:
    return round(ms * rate_hz / 1000)


def samples_to_ms(samples: int, rate_hz: int = MODEL_RATE_HZ) -> float:
    return samples * 1000 / rate_hz


def silence(samples: int) -> FloatArray:
    return np.zeros(samples, dtype=np.float32)


def sanitise(pcm: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """A copy of ``pcm`` in which every sample is finite and within ±1: NaN becomes 0, the rest is clipped. It goes into
    ``out`` where that is given, which may be ``pcm`` itself.

    One NaN in a model's attention cache poisons its row for as long as the cache remembers it.
    """
    clipped = np.clip(pcm, -1.0, 1.0, out=out)
    # The product is quicker than a look at each sample: no number where one of them is none, finite where all are.
    if math.isnan(np.vdot(clipped, clipped)):
        np.nan_to_num(clipped, copy=False, nan=0.0)
    return clipped.astype(np.float32, copy=False)


def level_dbfs(pcm: FloatArray) -> float:
    """Root mean square of ``pcm`` in dB relative to full scale, at least :data:`SILENCE_DBFS`."""
    if pcm.size == 0:
        return SILENCE_DBFS
    power = float(np.dot(pcm, pcm)) / pcm.size
    if not power > _LEAST_POWER:  # also NaN
        return SILENCE_DBFS
    return max(SILENCE_DBFS, 10 * math.log10(power))


def to_int16(pcm: FloatArray) -> npt.NDArray[np.int16]:
    """Float samples within ±1 as 16-bit integers, clipped, scaled by 32767 both ways."""
    return (np.clip(pcm, -1.0, 1.0) * 32767.0).astype(np.int16)


def from_int16(samples: npt.NDArray[np.int16]) -> FloatArray:
    """16-bit integers as float samples within ±1."""
    return samples.astype(np.float32) / np.float32(32768.0)


class Resampler:
    """A streaming resampler of mono float32 to another rate: no steps at block borders.

    ``soxr``'s low-quality setting: 16 bits deep, which is more than Opus and µ-law leave of a signal, and
    1.25 ms of delay from 48 kHz, where the better settings take 25 ms (measured; from 8 kHz all take 15 to 25).
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.from_hz = from_hz
        self.to_hz = to_hz
        self._stream = None
        if from_hz != to_hz:
            self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="LQ")

    def process(self, pcm: FloatArray) -> FloatArray:
        """The next samples at the new rate; their number varies from call to call, none are lost."""
        if self._stream is None:
            return pcm
        out: FloatArray = self._stream.resample_chunk(pcm)
        return out


class FrameAssembler:
    """Cuts a stream of blocks of any length into frames of exactly ``frame_samples``."""

    def __init__(self, frame_samples: int = FRAME_SAMPLES) -> None:
        self._frame_samples = frame_samples
        self._blocks: list[FloatArray] = []
        self._buffered = 0

    @property
    def buffered_samples(self) -> int:
        return self._buffered

    def push(self, pcm: FloatArray) -> list[FloatArray]:
        """Add samples; returns the frames that are complete now, oldest first."""
        if pcm.size:
            self._blocks.append(pcm)
            self._buffered += pcm.size
        if self._buffered < self._frame_samples:
            return []
        whole = np.concatenate(self._blocks)
        count = whole.size // self._frame_samples
        cut = count * self._frame_samples
        rest = whole[cut:]
        self._blocks = [rest] if rest.size else []
        self._buffered = rest.size
        return list(whole[:cut].reshape(count, self._frame_samples))

    def clear(self) -> None:
        self._blocks.clear()
        self._buffered = 0
