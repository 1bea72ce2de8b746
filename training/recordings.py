"""A person's recordings, for the examination: numbers and days, alone and put together.

They come with Debian's ``asterisk-core-sounds-en-wav``, spoken by Allison Smith for telephone systems
(CC BY-SA 3.0, the Asterisk project). They are never trained with, and nothing is chosen by them. Owns where they lie
and what they say.
"""

from __future__ import annotations

import random
import wave
from pathlib import Path
from typing import Final

import numpy as np
import soxr

from lab.pico.phrases import DAYS, NUMBERS
from lab.speech.spoken import Spoken, joined, trimmed
from rtc_server.audio import MODEL_RATE_HZ, from_int16

SPEAKER: Final = "allison"
_DIRECTORY: Final = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
_FILES: Final = {
    **{word: f"digits/{number}" for number, word in enumerate(NUMBERS)},
    **{day: f"digits/day-{(place + 1) % len(DAYS)}" for place, day in enumerate(DAYS)},
    "plus": "letters/plus",
    "minus": "digits/minus",
}
_GAP_S: Final = (0.04, 0.15)
"""Between the words of a sentence."""
_SUMS, _LISTS = 12, 12


def missing() -> str:
    """What has to be installed; empty if nothing has."""
    return "" if _DIRECTORY.is_dir() else "asterisk-core-sounds-en-wav (Debian)"


def words() -> list[Spoken]:
    """Each number and each day alone."""
    return [_together([word], random.Random(0)) for word in (*NUMBERS, *DAYS)]


def sentences(seed: int) -> list[Spoken]:
    """Sums and differences, and three numbers or days in a row."""
    random_ = random.Random(seed)
    sums = [
        [random_.choice(NUMBERS[:11]), random_.choice(("plus", "minus")), random_.choice(NUMBERS[:11])]
        for _ in range(_SUMS)
    ]
    lists = [random_.sample(random_.choice((NUMBERS, DAYS)), 3) for _ in range(_LISTS)]
    return [_together(one, random_) for one in (*sums, *lists)]


def _together(said: list[str], random_: random.Random) -> Spoken:
    made = joined([_recording(word) for word in said], [random_.uniform(*_GAP_S) for _ in said[1:]])
    return trimmed(made.pcm, made.words)


def _recording(word: str) -> Spoken:
    with wave.open(str(_DIRECTORY / f"{_FILES[word]}.wav")) as file:
        pcm = from_int16(np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16))
        wide = np.asarray(soxr.resample(pcm, file.getframerate(), MODEL_RATE_HZ), dtype=np.float32)
    return trimmed(wide, [(0.0, word)])
