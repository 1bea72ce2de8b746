"""A microphone that says what it is given, and is quiet otherwise."""

from __future__ import annotations

import numpy as np

from rtc_server.audio import FloatArray


class Mouth:
    """Give it to a client as its microphone."""

    def __init__(self) -> None:
        self._left = np.zeros(0, dtype=np.float32)

    def utter(self, pcm: FloatArray) -> None:
        """Say this, at the microphone's rate, after what is still to be said."""
        self._left = np.concatenate((self._left, pcm))

    @property
    def speaks(self) -> bool:
        return bool(self._left.size)

    def __call__(self, samples: int) -> FloatArray:
        pcm, self._left = self._left[:samples], self._left[samples:]
        return np.pad(pcm, (0, samples - len(pcm)))
