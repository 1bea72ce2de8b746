"""Mixes several channels to one as they come: a weighted sum, without channels that cancel each other.

In a sum, a channel that is another one turned over (a wrongly wired microphone, a "karaoke" effect) takes that one with
it. So the correlation of the channels is followed, and of two that oppose each other only one is kept. Pure: for files
and for live stereo.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from rtc_server.audio import FloatArray

_BLOCK_S: Final = 0.02
_MEMORY_S: Final = 0.4
"""For which a correlation is remembered: some syllables."""
_OPPOSED: Final = -0.35
"""Correlation from which on two channels cancel more than they add. Independent microphones and natural stereo stay
above it; a voice turned over in one channel is below it even where there is as much noise as voice."""
_AGREED: Final = -0.1
"""Correlation from which on a channel is taken back in."""
_LOYALTY: Final = 4.0
"""How much more power a channel must have than one that is kept, to be kept instead: changing turns the sound over."""
_FADE_S: Final = 0.01


class Downmix:
    """One stream of ``channels`` at ``rate_hz``, mixed by ``weights``, which together are 1."""

    def __init__(self, weights: FloatArray, rate_hz: int) -> None:
        self._weights = weights
        self._gains = weights
        self._kept = np.ones(weights.size, dtype=bool)
        self._products: npt.NDArray[np.float64] = np.zeros((weights.size, weights.size))
        self._rate_hz = rate_hz
        self._block_samples = max(1, round(_BLOCK_S * rate_hz))
        self._fade_samples = max(1, round(_FADE_S * rate_hz))

    def set_weights(self, weights: FloatArray) -> None:
        """From the next block on; the change is faded."""
        self._weights = weights

    def push(self, pcm: FloatArray) -> FloatArray:
        """``pcm``: finite, shape [samples, channels]. Returns as many samples."""
        if pcm.shape[1] == 1:
            mono: FloatArray = pcm[:, 0] * self._weights[0]
            return mono
        if pcm.shape[0] <= self._block_samples:
            return self._mix(pcm)
        starts = range(0, pcm.shape[0], self._block_samples)
        return np.concatenate([self._mix(pcm[start : start + self._block_samples]) for start in starts])

    def _mix(self, pcm: FloatArray) -> FloatArray:
        begins = not self._products.any()
        self._follow(pcm)
        before, self._gains = self._gains, self._target()
        mono: FloatArray = pcm @ self._gains
        if before is not self._gains and not begins and not np.array_equal(before, self._gains):
            fade = np.linspace(1, 0, min(self._fade_samples, mono.size), dtype=np.float32)
            mono[: fade.size] += fade * (pcm[: fade.size] @ (before - self._gains))
        return mono

    def _follow(self, pcm: FloatArray) -> None:
        self._products *= math.exp(-pcm.shape[0] / (_MEMORY_S * self._rate_hz))
        self._products += pcm.T @ pcm

    def _target(self) -> FloatArray:
        power = self._products.diagonal()
        # Of all pairs, for most streams have none that opposes another, at any time.
        limit = np.sqrt(np.outer(power, power))
        if self._kept.all() and not (self._products < _OPPOSED * limit).any():
            return self._weights
        self._kept = self._choose(power * self._weights**2, limit)
        gains: FloatArray = np.where(self._kept, self._weights, np.float32(0))
        total = gains.sum()
        return gains / total if total > 0 else self._weights

    def _choose(self, power: npt.NDArray[np.float64], limit: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """The loudest first, each that opposes none of those before it."""
        order = np.argsort(-power * np.where(self._kept, _LOYALTY, 1.0), kind="stable")
        kept = np.zeros(power.size, dtype=bool)
        for channel in order:
            threshold = _OPPOSED if self._kept[channel] else _AGREED
            opposed = self._products[channel] < threshold * limit[channel]
            kept[channel] = not (opposed & kept).any()
        return kept
