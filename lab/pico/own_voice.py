"""The model's own voice: every part of every answer, spoken once, from the beginning of a frame on.

Because a part always begins with a frame and always sounds the same, its codes are nearly always the same,
which is what lets so small a model speak clearly. Knows no conversation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from lab.pico import phrases
from lab.speech import espeak
from lab.speech.spoken import Voice
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray

VOICE: Final = Voice("en-us+f2", words_per_minute=160, pitch=55, pitch_range=45)
"""The one voice that the model speaks with."""
COUNT_FRAMES: Final = 8
"""From one number of a count to the next: 0.64 s."""
_FADE: Final = np.linspace(1.0, 0.0, MODEL_RATE_HZ // 50, dtype=np.float32)
_LEVEL: Final = 0.8
"""Of the synthesizer's half scale."""


@dataclass(frozen=True, slots=True)
class Part:
    """``pcm``: a whole number of frames. ``words``: the frame in which each begins, counted from the first."""

    pcm: FloatArray
    words: tuple[tuple[int, str], ...]

    @property
    def frames(self) -> int:
        return len(self.pcm) // FRAME_SAMPLES


@cache
def part(text: str) -> Part:
    """``text`` in the model's voice."""
    spoken = espeak.speak(text, VOICE)
    frames = math.ceil(len(spoken.pcm) / FRAME_SAMPLES)
    pcm = np.zeros(frames * FRAME_SAMPLES, dtype=np.float32)
    pcm[: len(spoken.pcm)] = spoken.pcm * _LEVEL
    return Part(pcm, _placed(text, spoken.words, frames))


def all_parts() -> list[str]:
    """The texts of all parts of all answers, numbers included, sorted."""
    texts = {text for question in phrases.questions() for text in question.reply.parts}
    texts |= {*phrases.NUMBERS, phrases.NOT_UNDERSTOOD, phrases.NOTHING_TO_GO_ON_WITH}
    return sorted(texts)


def all_words() -> list[str]:
    """The words of each part, as the tokenizer has to know them."""
    return [" ".join(word for _, word in part(text).words) for text in all_parts()]


def cut(pcm: FloatArray, frames: int) -> FloatArray:
    """``pcm`` with nothing after ``frames`` frames but a fade of 20 ms."""
    end = frames * FRAME_SAMPLES
    short = pcm.copy()
    short[end:] = 0
    tail = pcm[end : end + len(_FADE)]
    short[end : end + len(tail)] = tail * _FADE[: len(tail)]
    return short


def sequence(uttered: Sequence[tuple[int, str, int]], frames: int) -> FloatArray:
    """``frames`` frames in which parts are ``uttered``: from which frame on, which, and how much of it."""
    pcm = np.zeros(frames * FRAME_SAMPLES, dtype=np.float32)
    for at, text, length in uttered:
        said = cut(part(text).pcm, length)
        room = pcm[at * FRAME_SAMPLES : at * FRAME_SAMPLES + len(said)]
        room += said[: len(room)]
    return pcm


def _placed(text: str, reported: tuple[tuple[float, str], ...], frames: int) -> tuple[tuple[int, str], ...]:
    """One word to a frame, each where it begins or as soon after as there is a frame.

    espeak-ng reports some pairs of words, such as "I am", as one, or under an odd name: such a word begins amid
    its neighbours.
    """
    words = re.findall(r"[a-z']+", text.lower())
    coming = [(start_s, word.lower()) for start_s, word in reported if word.lower() in words]
    placed: list[tuple[int, str]] = []
    start_s = 0.0
    for word in words:
        if coming and coming[0][1] == word:
            start_s = coming.pop(0)[0]
        elif coming:
            start_s = (start_s + coming[0][0]) / 2
        earliest = placed[-1][0] + 1 if placed else 0
        placed.append((max(earliest, int(start_s * MODEL_RATE_HZ / FRAME_SAMPLES)), word))
    assert not coming, (text, reported)
    assert placed[-1][0] < frames, text
    return tuple(placed)
