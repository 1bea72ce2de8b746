"""What every synthesizer gives: samples, and when each word and phoneme begins.

Owns the types. Knows no synthesizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rtc_server.audio import MODEL_RATE_HZ, FloatArray, silence

WORDS_PER_MINUTE: Final = 165
"""Of a voice at its own pace."""
_AUDIBLE: Final = 0.01
"""Of the peak: what lies below it, before and after, is silence."""
_PEAK: Final = 0.5


class SpeechError(Exception):
    """A synthesizer is missing, does not know the voice, or says nothing."""


@dataclass(frozen=True, slots=True)
class Voice:
    """``name``: of espeak-ng, such as ``en-us+f2``, or of another synthesizer and of its voice, ``flite:rms``.
    ``words_per_minute``: 80 to 450; ``pitch`` and ``pitch_range``, of espeak-ng: 0 to 100, 50 is the voice's own."""

    name: str
    words_per_minute: int = WORDS_PER_MINUTE
    pitch: int = 50
    pitch_range: int = 50

    @property
    def pace(self) -> float:
        """How much faster than by itself."""
        return self.words_per_minute / WORDS_PER_MINUTE


@dataclass(frozen=True, slots=True)
class Spoken:
    """``pcm``: mono float32 at 24 kHz, without the silence around it. ``words`` and ``phonemes``: what begins
    when, in seconds from the first sample; phonemes are ARPABET's (:mod:`lab.speech.phonemes`)."""

    pcm: FloatArray
    words: tuple[tuple[float, str], ...]
    phonemes: tuple[tuple[float, str], ...]

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / MODEL_RATE_HZ


def guessed(spoken: Spoken, text: str) -> Spoken:
    """``spoken`` with times of its words that are shared out by letters, where nothing better is known."""
    words, letters, before = text.split(), len(text.replace(" ", "")), 0
    begins = []
    for word in words:
        begins.append((spoken.duration_s * before / letters, word))
        before += len(word)
    return Spoken(spoken.pcm, tuple(begins), ())


def joined(words: Sequence[Spoken], gaps_s: Sequence[float]) -> Spoken:
    """``words`` one after the other, with ``gaps_s`` of silence between, one fewer than they are. Without phonemes."""
    parts: list[FloatArray] = []
    begins: list[tuple[float, str]] = []
    at = 0
    for gap_s, word in zip((0.0, *gaps_s), words, strict=True):
        gap = silence(round(gap_s * MODEL_RATE_HZ))
        at += len(gap)
        begins += [(at / MODEL_RATE_HZ + begins_s, one) for begins_s, one in word.words]
        parts += [gap, word.pcm]
        at += len(word.pcm)
    return Spoken(np.concatenate(parts), tuple(begins), ())


def trimmed(
    pcm: FloatArray, words: Sequence[tuple[float, str]] = (), phonemes: Sequence[tuple[float, str]] = ()
) -> Spoken:
    """Without the silence around it, the peak at half scale. Raises :class:`SpeechError` if nothing is left."""
    loud = np.flatnonzero(np.abs(pcm) > _AUDIBLE * max(float(np.abs(pcm).max(initial=0.0)), 1e-6))
    if len(loud) == 0:
        raise SpeechError("There is nothing to be heard.")
    first, last = int(loud[0]), int(loud[-1]) + 1
    shift = first / MODEL_RATE_HZ
    pcm = pcm[first:last]
    return Spoken(
        (pcm * (_PEAK / float(np.abs(pcm).max()))).astype(np.float32),
        tuple((max(0.0, at - shift), word) for at, word in words),
        tuple((max(0.0, at - shift), phoneme) for at, phoneme in phonemes),
    )
