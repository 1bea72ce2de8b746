"""The languages that a model which transcribes learns: the words of each, and its sentences.

Owns what is of which language. Knows no voice and no network.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lab.pico import phrases, portuguese
from training import manners
from training.examination import wording
from training.voices import Language

_STRANGE: Final = 0.25
"""Of the English that is read, the share that is no question."""


@dataclass(frozen=True, slots=True)
class Tongue:
    """``vocabulary``: every word, sorted. ``trained`` and ``held_out``: draw a sentence to train or to examine with."""

    vocabulary: Callable[[], Sequence[str]]
    trained: Callable[[random.Random], str]
    held_out: Callable[[random.Random], str]


def _english_trained(random_: random.Random) -> str:
    if random_.random() < _STRANGE:
        return manners.strangely(random_)
    return random_.choice(random_.choice(phrases.questions()).trained())


def _english_held_out(random_: random.Random) -> str:
    if random_.random() < _STRANGE:
        return phrases.strange(random_, held_out=True)
    return wording(random_.choice(phrases.questions()), random_)


TONGUES: Final[dict[Language, Tongue]] = {
    "en": Tongue(phrases.vocabulary, _english_trained, _english_held_out),
    "pt": Tongue(portuguese.vocabulary, portuguese.trained, portuguese.held_out),
}
