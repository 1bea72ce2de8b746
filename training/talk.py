"""Others who talk with each other across the room, three at a time: to that a model should say nothing, and write none
of it.

Owns how many there are, how loud and how far; what they say and by whose voices is told. Knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import numpy as np

from lab.speech.spoken import Spoken
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, silence
from training import sounds

SHARE: Final = 0.4
"""Of what disturbs, and of the scenes in which no person speaks to the model."""
LASTS_S: Final = (1.0, 6.0)
"""Where it comes between other things."""
_TALKERS: Final = 3
_PIECES: Final = 4
"""So many are made, and all that is heard is of them."""
_LEVEL_DB: Final = (-62.0, -33.0)
"""Against full scale."""

Speaking = Callable[[], Spoken]
"""What one of them says, each time something else."""


class Talk:
    """``speaker``: the next of those who talk. ``longest``: samples at 24 kHz that are asked for, at most."""

    def __init__(
        self,
        speaker: Callable[[], Speaking],
        longest: int,
        random_: random.Random,
        numpy_: np.random.Generator,
    ) -> None:
        self._speaker = speaker
        self._longest = longest
        self._random = random_
        self._numpy = numpy_
        self._pieces: list[FloatArray] = []

    def some(self, count: int) -> FloatArray:
        """``count`` samples of it."""
        if not self._pieces:
            self._pieces = [self._made() for _ in range(_PIECES)]
        piece = self._random.choice(self._pieces)
        first = self._random.randrange(len(piece) - count + 1)
        return piece[first : first + count] * np.float32(10 ** (self._random.uniform(*_LEVEL_DB) / 20))

    def _made(self) -> FloatArray:
        """With an RMS of one."""
        pcm = silence(self._longest)
        for _ in range(_TALKERS):
            speak, at = self._speaker(), int(self._random.uniform(0, 1) * MODEL_RATE_HZ)
            while at < len(pcm):
                spoken = speak()
                room = pcm[at : at + len(spoken.pcm)]
                room += spoken.pcm[: len(room)]
                at += len(spoken.pcm) + int(self._random.uniform(0.1, 1.0) * MODEL_RATE_HZ)
        pcm = sounds.room(pcm, self._numpy)
        return np.asarray(pcm / np.sqrt(np.mean(pcm**2)), dtype=np.float32)
