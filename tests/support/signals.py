"""Sounds for tests, and what can be measured on them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rtc_server.audio import MODEL_RATE_HZ

FloatArray = npt.NDArray[np.float32]


def sine(samples: int, hz: float = 440.0, rate_hz: int = MODEL_RATE_HZ, amplitude: float = 0.5) -> FloatArray:
    """Mono float32, shape [samples], starting at phase 0."""
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(samples) / rate_hz)).astype(np.float32)


def pitch_hz(pcm: npt.NDArray[np.floating], rate_hz: int = MODEL_RATE_HZ) -> float:
    """The frequency that is strongest, to within ``rate_hz / pcm.size``."""
    windowed = pcm * np.hanning(pcm.size)
    return float(np.argmax(np.abs(np.fft.rfft(windowed)))) * rate_hz / pcm.size


def largest_step(pcm: npt.NDArray[np.floating]) -> float:
    """The largest difference between neighbouring samples: what a click shows in."""
    return float(np.abs(np.diff(pcm)).max())


def sine_step(hz: float = 440.0, rate_hz: int = MODEL_RATE_HZ, amplitude: float = 0.5) -> float:
    """The largest difference between neighbouring samples of :func:`sine`."""
    return float(2 * amplitude * np.sin(np.pi * hz / rate_hz))
