"""An independent ear: does the model's voice say what its transcript says?

Owns the recogniser, pocketsphinx with the English model that its package brings, held to a grammar of the model's
replies: it has to tell them apart, not to spell. Knows no model and no examination.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

import numpy as np
import soxr
from pocketsphinx import Decoder

from lab.pico import own_voice, phrases
from lab.pico.phrases import normalised
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, silence, to_int16

_RATE_HZ: Final = 16_000
_MARGIN: Final = silence(MODEL_RATE_HZ // 4)
_HISS: Final = 3e-4
"""Of full scale, RMS: digital silence is nothing that the recogniser has learnt."""
_THAT_IS: Final = "that is"


class Recogniser:
    """Hears one reply at a time."""

    def __init__(self) -> None:
        # Every reply is levelled by itself: most are too short for the recogniser to get used to a voice.
        self._decoder = Decoder(lm=None, samprate=_RATE_HZ, cmn="batch", loglevel="FATAL")
        self._decoder.add_jsgf_string("reply", grammar())
        self._decoder.activate_search("reply")

    def hear(self, pcm: FloatArray) -> str:
        """The words in ``pcm``, at 24 kHz; empty if it is none of the replies."""
        padded = np.concatenate((_MARGIN, pcm, _MARGIN))
        hiss = np.random.default_rng(0).normal(0.0, _HISS, len(padded))
        narrow = soxr.resample((padded + hiss).astype(np.float32), MODEL_RATE_HZ, _RATE_HZ)
        self._decoder.start_utt()
        self._decoder.process_raw(to_int16(narrow).tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""


def grammar() -> str:
    """All that the model may say, in JSGF: a sentence, the result of a sum, or a count from any number to any other.

    Numbers in any order would let the recogniser hear an "eight" in every breath.
    """
    numbers = phrases.NUMBERS
    sentences = {normalised(text) for text in own_voice.all_parts()} - {*numbers, _THAT_IS}
    last = len(numbers) - 1
    counts = [f"<from{index}> = {numbers[index]} [<from{index + 1}>];" for index in range(last)]
    return "\n".join(
        (
            "#JSGF V1.0;",
            "grammar reply;",
            *counts,
            f"<from{last}> = {numbers[last]};",
            f"<number> = {' | '.join(numbers)};",
            f"<count> = {' | '.join(f'<from{index}>' for index in range(last + 1))};",
            f"<sentence> = {' | '.join(sorted(sentences))};",
            f"public <reply> = <sentence> | {_THAT_IS} <number> | <count>;",
        )
    )


@cache
def _sentences() -> dict[str, FloatArray]:
    return {normalised(text): own_voice.part(text).pcm for text in own_voice.all_parts()}


def own(text: str) -> FloatArray | None:
    """A reply as the training teaches it, mono at 24 kHz; None for a text that is no reply."""
    words = text.split()
    if text in _sentences():
        return _sentences()[text]
    if text.startswith(f"{_THAT_IS} ") and words[2:] and words[2] in phrases.NUMBERS and len(words) == 3:
        return np.concatenate((_sentences()[_THAT_IS], own_voice.part(words[2]).pcm))
    if words and set(words) <= set(phrases.NUMBERS):
        return count(words)
    return None


def count(words: Sequence[str]) -> FloatArray:
    """The model's voice counting, at its pace."""
    pace = own_voice.COUNT_FRAMES
    score = [(index * pace, word, min(pace, own_voice.part(word).frames)) for index, word in enumerate(words)]
    return own_voice.sequence(score, (len(words) + 1) * pace)


def differing(recogniser: Recogniser, replies: Iterable[tuple[str, FloatArray]]) -> list[tuple[str, str]]:
    """Of ``replies``, those that sound otherwise than they read: what is written, what is heard."""
    heard = ((text, recogniser.hear(pcm)) for text, pcm in replies)
    return [(text, words) for text, words in heard if words != text]


def ceiling(recogniser: Recogniser, texts: Sequence[str]) -> float:
    """The share of ``texts``, all of them replies, that is understood of the voice that the training teaches."""
    taught = {text: pcm for text in texts if (pcm := own(text)) is not None}
    misheard = {text for text, _ in differing(recogniser, taught.items())}
    return sum(text not in misheard for text in texts) / len(texts)
