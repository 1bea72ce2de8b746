"""Listening with figures: delay, likeness, gaps and pitch of what was played against what was said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import correlate

from rtc_server import audio
from rtc_server.audio import FloatArray

_BLOCK_MS = 10
_LOUD_DBFS = -40.0
_FADED_DB = 25.0
"""A voice this much quieter than what was said is a gap."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """``delay_ms``: of the played behind the said. ``correlation``: normalised, at that delay."""

    delay_ms: float
    correlation: float


def compare(said: FloatArray, played: FloatArray, rate_hz: int) -> Likeness:
    """Both on one clock; the delay is looked for in both directions."""
    size = min(said.size, played.size)
    said, played = said[:size].astype(np.float64), played[:size].astype(np.float64)
    products = correlate(played, said, mode="full", method="fft")
    lag = int(products.argmax()) - (size - 1)
    a, b = (said[: size - lag], played[lag:]) if lag >= 0 else (said[-lag:], played[: size + lag])
    norm = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return Likeness(lag * 1000 / rate_hz, float(np.dot(a, b)) / norm if norm else 0.0)


def levels(pcm: FloatArray, rate_hz: int) -> FloatArray:
    """Level in dBFS of each 10 ms."""
    block = rate_hz * _BLOCK_MS // 1000
    blocks = pcm[: pcm.size // block * block].reshape(-1, block).astype(np.float64)
    found: FloatArray = (10 * np.log10(np.maximum((blocks**2).mean(axis=1), 1e-10))).astype(np.float32)
    return found


def longest_gap_ms(said: FloatArray, played: FloatArray, rate_hz: int, delay_ms: float) -> float:
    """The longest time for which the played voice was away while the said one, at that delay, was not."""
    shift = round(delay_ms * rate_hz / 1000)
    heard = levels(played[shift:], rate_hz)
    meant = levels(said[: played.size - shift], rate_hz)[: heard.size]
    away = (meant > _LOUD_DBFS) & (heard < meant - _FADED_DB)
    longest = run = 0
    for gone in away:
        run = run + 1 if gone else 0
        longest = max(longest, run)
    return float(longest * _BLOCK_MS)


def steady_likeness(said: FloatArray, played: FloatArray, rate_hz: int, window_s: float = 2.0) -> Likeness:
    """The medians of :func:`compare` over windows in which something was said.

    A receiver stretches and squeezes time a little while it looks for its delay (Chromium's NetEq does so in the
    first seconds of every call): the delay of the whole is then no single number, but that of two seconds is.
    """
    window = round(window_s * rate_hz)
    pairs = [
        (said[start : start + window], played[start : start + window])
        for start in range(0, min(said.size, played.size) - window + 1, window // 2)
    ]
    found = [compare(a, b, rate_hz) for a, b in pairs if audio.level_dbfs(a) > _LOUD_DBFS]
    assert found, "nothing was said"
    return Likeness(
        float(np.median([likeness.delay_ms for likeness in found])),
        float(np.median([likeness.correlation for likeness in found])),
    )


def pitch_ratio(said: FloatArray, played: FloatArray, rate_hz: int, delay_ms: float) -> float:
    """Median over blocks that are voiced in both, at that delay, of played over said pitch."""
    shift = round(delay_ms * rate_hz / 1000)
    window = rate_hz * 40 // 1000
    ratios = []
    for start in range(0, min(said.size, played.size) - shift - window, window // 2):
        before = _pitch_hz(said[start : start + window], rate_hz)
        after = _pitch_hz(played[start + shift : start + shift + window], rate_hz)
        if before is not None and after is not None:
            ratios.append(after / before)
    assert len(ratios) >= 10, "hardly anything voiced was found"
    return float(np.median(ratios))


def _pitch_hz(block: FloatArray, rate_hz: int) -> float | None:
    """By autocorrelation, between 60 and 400 Hz; None where nothing is voiced."""
    if audio.level_dbfs(block) < _LOUD_DBFS:
        return None
    centred = block.astype(np.float64) - block.mean()
    likeness = correlate(centred, centred, mode="full", method="fft")[block.size - 1 :]
    lags = slice(rate_hz // 400, rate_hz // 60)
    best = int(likeness[lags].argmax()) + lags.start
    return rate_hz / best if likeness[best] > 0.6 * likeness[0] else None
