"""A microphone that says sentences when it is told to, and is quiet otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import soxr

from lab.sound.mouth import Mouth
from lab.speech import espeak, people
from lab.speech.spoken import Voice, trimmed
from lab.waiting import until
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.client import MICROPHONE_HZ
from tests.support.missing import skip_but_in_ci

LEVEL = 0.7
VOICE: Final = "en-us+m7"
ASKED: Final = 3
"""As a person does, a sentence is said again that was not understood: sound is lost where a machine is busy."""
AGAIN_S: Final = 15.0


def spoken(text: str, voice: str = VOICE, words_per_minute: int = 160) -> FloatArray:
    """``text``, mono float32 at 24 kHz, in a voice that no model was trained with, or in a person's."""
    chosen = Voice(voice, words_per_minute)
    if not people.is_one(voice):
        return espeak.speak(text, chosen).pcm * np.float32(LEVEL)
    (pcm,) = people.speak([text], voice, chosen.pace)
    return trimmed(pcm).pcm * np.float32(LEVEL)


def need_voices(*names: str) -> None:
    """Skip the test where one of ``lab.speech.people`` cannot speak, saying what it needs; in CI, fail."""
    missing = [people.missing(name) for name in names if people.missing(name)]
    if missing:
        skip_but_in_ci(f"needs {', '.join(missing)}: make system installs it, or says how")


class Speaker(Mouth):
    """A microphone that says sentences."""

    def say(self, text: str) -> None:
        self.utter(np.asarray(soxr.resample(spoken(text), MODEL_RATE_HZ, MICROPHONE_HZ), dtype=np.float32))


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
