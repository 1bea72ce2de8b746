"""G.711: one byte a sample, by tables both ways. Pure."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from rtc_server.audio import FloatArray

_STEPS: Final = 2**14
"""A-law has 13 bits and µ-law 14: no two code words are nearer than that."""


class Companding:
    """One of the two laws. ``levels``: of the 256 code words, samples within ±1."""

    def __init__(self, levels: FloatArray) -> None:
        self.levels = levels
        order = np.argsort(levels, kind="stable")
        steps = (np.arange(-_STEPS, _STEPS + 1) / _STEPS).astype(np.float32)
        middles = (levels[order][1:] + levels[order][:-1]) / 2
        self._codes = order[np.searchsorted(middles, steps)].astype(np.uint8)

    def decode(self, raw: bytes) -> FloatArray:
        """Samples within ±1."""
        return self.levels[np.frombuffer(raw, dtype=np.uint8)]

    def encode(self, pcm: FloatArray) -> bytes:
        """The nearest code word of each sample; what is beyond ±1 is clipped."""
        steps = np.rint(np.clip(pcm, -1.0, 1.0) * _STEPS).astype(np.int32) + _STEPS
        codes: npt.NDArray[np.uint8] = self._codes[steps]
        return codes.tobytes()


def _ulaw_table() -> FloatArray:
    """ITU-T G.711, table 2a: µ-law code words to samples within ±1."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = ((mantissa * 2 + 33) << exponent) - 33
    return (np.where(code & 128, -magnitude, magnitude) / 8192).astype(np.float32)


def _alaw_table() -> FloatArray:
    """ITU-T G.711, table 1a: A-law code words to samples within ±1."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    linear = mantissa * 2 + 1
    magnitude = np.where(exponent == 0, linear, (linear + 32) << (np.maximum(exponent, 1) - 1))
    return (np.where(code & 128, magnitude, -magnitude) / 4096).astype(np.float32)


ULAW: Final = Companding(_ulaw_table())
ALAW: Final = Companding(_alaw_table())
