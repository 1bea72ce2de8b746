"""What people's voices say: phrases that were spoken once, with the times of their words, and are varied ever after.

Owns the files, each made from the name of a voice and a number, so that a bank can grow while a training reads it.
Synthesizing again each time, as with espeak-ng, would take longer than all the rest.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from lab.pico import phrases
from lab.pico.phrases import Question
from lab.speech import people
from lab.speech.spoken import SpeechError, Spoken, Voice
from rtc_server.audio import from_int16, to_int16
from training import manners, sounds, voices

STRANGE: Final = "strange"
WORD: Final = "word"
"""The topic of a phrase that is one word alone."""
PHRASES: Final = 50
"""In one file."""
OF_MIXED: Final = 6
"""Files of the voice that is many, for one of any other."""
_STRANGE_SHARE: Final = 0.25
_WORD_SHARE: Final = 0.3
_WORDS_PER_MINUTE: Final = (115, 230)
"""Slow and fast speakers: 0.7 to 1.4 times a voice's own pace."""
_SIZES: Final = (0.86, 1.2)
"""A larger person speaks lower: pitch and formants together, by resampling."""
_SHAPES: Final = (0.87, 1.15)
"""Formants alone: so a few voices become many."""
_SHAPED: Final = 0.5


@dataclass(frozen=True, slots=True)
class Phrase:
    """``pcm``: int16 at 24 kHz. ``question``: what is asked; None if it is strange."""

    text: str
    pcm: np.ndarray[Any, np.dtype[np.int16]]
    words: tuple[tuple[float, str], ...]
    phonemes: tuple[tuple[float, str], ...]
    question: Question | None

    @property
    def topic(self) -> str:
        if self.question:
            return self.question.topic
        return STRANGE if " " in self.text else WORD

    def spoken(self, random_: random.Random) -> Spoken:
        """By a speaker larger or smaller than the one who spoke it, and so a little slower or faster; of every other
        one the throat is another as well."""
        made = self.sized(self.size(random_))
        shape = random_.uniform(*_SHAPES) if random_.random() < _SHAPED else 1.0
        return replace(made, pcm=sounds.shaped(made.pcm, shape))

    @staticmethod
    def size(random_: random.Random) -> float:
        """Of such a speaker, as a factor."""
        return random_.uniform(*_SIZES)

    def sized(self, size: float) -> Spoken:
        """By a speaker of ``size``."""
        return Spoken(
            sounds.sized(from_int16(self.pcm), size),
            tuple((at * size, word) for at, word in self.words),
            tuple((at * size, phoneme) for at, phoneme in self.phonemes),
        )


class Bank:
    """All phrases of a directory, by voice and topic."""

    def __init__(self, directory: Path) -> None:
        known = {*phrases.vocabulary(), *manners.unknown(), *manners.FILLERS}
        asked = {text: question for question in phrases.questions() for text in question.wordings}
        self.voices: dict[str, list[Phrase]] = {}
        self._by_topic: dict[tuple[str, str], list[Phrase]] = {}
        self._words: dict[tuple[str, str], list[Phrase]] = {}
        for path in sorted(directory.glob("*.npz")):
            name, made = _read(path, asked)
            made = [phrase for phrase in made if known.issuperset(phrase.text.lower().split())]
            self.voices.setdefault(name, []).extend(made)
            for phrase in made:
                self._by_topic.setdefault((name, phrase.topic), []).append(phrase)
                if phrase.topic == WORD:
                    self._words.setdefault((name, phrase.text.lower()), []).append(phrase)

    def voice(self, random_: random.Random) -> str:
        """One of the voices, each as often as there are phrases of it."""
        (name,) = random_.choices(list(self.voices), [len(said) for said in self.voices.values()])
        return name

    def choose(self, voice: str, topic: str, random_: random.Random) -> Phrase | None:
        """Something that ``voice`` says of ``topic``, a topic of questions, :data:`STRANGE` or :data:`WORD`, if there
        is."""
        known = self._by_topic.get((voice, topic))
        return random_.choice(known) if known else None

    def word(self, voice: str, among: Sequence[str], random_: random.Random) -> Phrase | None:
        """A word alone by ``voice``, one of ``among``, or any of all, if it has said one."""
        if not among:
            return self.choose(voice, WORD, random_)
        said = self._words.get((voice, random_.choice(among)))
        return random_.choice(said) if said else None


def make(directory: Path, names: Sequence[str], files: int, count: int = PHRASES) -> Iterator[Path]:
    """``files`` of ``count`` phrases of each voice, and :data:`OF_MIXED` times as many of the one that is many.

    Only those that are missing: a file of each, then the next, so that all grow alike. Voices that are not installed
    are left out.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shares = {name: OF_MIXED if name == voices.MIXED else 1 for name in names if not people.missing(name)}
    for round_ in range(files):
        wanted = [(name, round_ * share + one) for name, share in shares.items() for one in range(share)]
        for name, number in wanted:
            path = directory / f"{name.replace(':', '-')}-{number:04d}.npz"
            if not path.exists():
                _write(path, name, number, count)
                yield path


def _write(path: Path, name: str, number: int, count: int) -> None:
    random_ = random.Random(f"{name} {number}")
    texts, made = [], []
    for _ in range(count):
        if random_.random() < _WORD_SHARE:
            asked, text = "", manners.word(random_)
        elif random_.random() < _STRANGE_SHARE:
            asked, text = "", manners.strangely(random_)
        else:
            wordings = _question(random_).trained()
            asked = random_.choice(wordings[:1] if random_.random() < 0.2 else wordings)
            text = manners.casually(asked, random_) if random_.random() < manners.CASUAL else asked
        try:
            voice = Voice(voices.speaker(name, random_), random_.randint(*_WORDS_PER_MINUTE))
            made += voices.spoken([text], voice)
        except SpeechError:
            continue  # what cannot be aligned was not said as it is written
        texts.append((asked, text))
    told = [
        {"asked": asked, "text": text, "words": one.words, "phonemes": one.phonemes, "samples": len(one.pcm)}
        for (asked, text), one in zip(texts, made, strict=True)
    ]
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        pcm = to_int16(np.concatenate([one.pcm for one in made]))
        np.savez(file, pcm=pcm, told=json.dumps({"voice": name, "phrases": told}))
    unfinished.replace(path)


def _question(random_: random.Random) -> Question:
    topics, weights = _topics()
    (asked,) = random_.choices(topics, weights)
    return random_.choice(asked)


@cache
def _topics() -> tuple[list[tuple[Question, ...]], list[float]]:
    """The questions of each topic, and how often they are asked: more often where there is more to say, as of 187
    sums."""
    topics = list(phrases.by_topic().values())
    return topics, [math.sqrt(sum(len(one.trained()) for one in asked)) for asked in topics]


def _read(path: Path, asked: dict[str, Question]) -> tuple[str, list[Phrase]]:
    with np.load(path) as file:
        told, pcm = json.loads(str(file["told"])), file["pcm"]
    made, at = [], 0
    for one in told["phrases"]:
        words = tuple((begins, word) for begins, word in one["words"])
        sounds = tuple((begins, phoneme) for begins, phoneme in one["phonemes"])
        question = asked.get(one["asked"])
        made.append(Phrase(one["text"], pcm[at : at + one["samples"]], words, sounds, question))
        at += one["samples"]
    return told["voice"], made
