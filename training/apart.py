"""Words alone, as one answers a question or dictates a list: one, or several in a row, or a sum.

Owns which words are said so and how they follow each other; readings and conversations have them. A model that has
heard nothing but sentences takes each for the sentence that it begins.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from lab.pico import phrases
from lab.speech import espeak
from lab.speech.spoken import Spoken, Voice, joined
from training import manners
from training.bank import Bank, Phrase

_ALONE: Final = 0.55
"""The share that is one word; the others are as many as this:"""
_IN_A_ROW: Final = (2, 5)
_SUM: Final = 0.2
"""Of what is several words, the share that is a sum."""
_GAP_S: Final = (0.0, 0.35)
"""Between words in a row."""


def said(bank: Bank | None, person: str, voice: Voice, random_: random.Random) -> Spoken:
    """A word, or several in a row, by ``person`` of the ``bank``, and by ``voice`` what there is not of that person; an
    empty ``person``: all by ``voice``."""
    size = Phrase.size(random_)
    if random_.random() < _ALONE:
        return _word(bank, person, voice, size, (), random_)
    if random_.random() < _SUM:
        wanted: list[Sequence[str]] = [phrases.NUMBERS, ("plus", "minus"), phrases.NUMBERS]
    else:
        among: Sequence[str] = random_.choice((phrases.NUMBERS, phrases.DAYS, ()))
        wanted = [among] * random_.randint(*_IN_A_ROW)
    words = [_word(bank, person, voice, size, among, random_) for among in wanted]
    return joined(words, [random_.uniform(*_GAP_S) for _ in words[1:]])


def _word(
    bank: Bank | None, person: str, voice: Voice, size: float, among: Sequence[str], random_: random.Random
) -> Spoken:
    """One of ``among``, or any."""
    phrase = bank.word(person, among, random_) if bank and person else None
    if phrase is not None:
        return phrase.sized(size)
    return espeak.speak(random_.choice(among) if among else manners.word(random_), voice)
