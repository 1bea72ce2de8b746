"""A microphone that says sentences when it is told to, and is quiet otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import soxr

from lab.speech import espeak
from lab.speech.spoken import Voice
from lab.waiting import until
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.client import MICROPHONE_HZ

LEVEL = 0.7
ASKED: Final = 3
"""As a person does, a sentence is said again that was not understood: sound is lost where a machine is busy."""
AGAIN_S: Final = 15.0


def spoken(text: str, voice: str = "en-us+m7", words_per_minute: int = 160) -> FloatArray:
    """``text``, mono float32 at 24 kHz, in a voice that no model was trained with."""
    return espeak.speak(text, Voice(voice, words_per_minute)).pcm * np.float32(LEVEL)


class Speaker:
    """Give it to a client as its microphone."""

    def __init__(self) -> None:
        self._left = np.zeros(0, dtype=np.float32)

    def say(self, text: str) -> None:
        pcm = np.asarray(soxr.resample(spoken(text), MODEL_RATE_HZ, MICROPHONE_HZ), dtype=np.float32)
        self._left = np.concatenate((self._left, pcm))

    @property
    def speaks(self) -> bool:
        return bool(self._left.size)

    def __call__(self, samples: int) -> FloatArray:
        pcm, self._left = self._left[:samples], self._left[samples:]
        return np.pad(pcm, (0, samples - len(pcm)))


async def say_until(speaker: Speaker, text: str, heard: Callable[[], bool], what: str) -> None:
    """``speaker`` says ``text`` until it is ``heard``. Raises AssertionError with ``what`` was not."""
    for _ in range(ASKED - 1):
        speaker.say(text)
        try:
            return await until(heard, what, AGAIN_S)
        except AssertionError:
            continue
    speaker.say(text)
    await until(heard, what)
