"""Readings to learn a language from: a person says its sentences, or words alone, with silence, noise, music or others'
talk between.

Owns who says what when, and the files of such a data set, each made from a number; what is heard of them is distorted
as conversations are (``sounds.py``). There is no model in them that answers. Knows no loss.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch
from moshi.models.compression import MimiModel
from moshi.utils.compile import no_compile

from lab.pico import phrases
from lab.speech import espeak
from lab.speech.spoken import Spoken, Voice, joined
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from training import codec, dataset, manners, sounds, talk, voices
from training.bank import Bank, Phrase
from training.checkpoint import load_codec
from training.conversations import FRAMES, Scene
from training.talk import Talk
from training.tongues import TONGUES
from training.voices import Language

_SILENT: Final = 0.1
"""Of the readings, the share in which the person says nothing."""
_ANOTHER: Final = 0.08
"""How often another person says the next sentence."""
_DISTURBED: Final = 0.16
"""How often noise, music or others' talk comes before the next sentence."""
_ENDS: Final = ("", "", ".", "?")
"""What a sentence is written with at its end, which changes its tune."""
_WORDS: Final = 0.15
"""Of what is read of a language, the share that is a word alone."""
_BATCH: Final = 8
_PEOPLE: Final = 0.6
"""Of those who say words alone, the share whose voice was made from a person's."""
_ALONE: Final = 0.55
"""Of what they say, the share that is one word; the others are as many as this:"""
_IN_A_ROW: Final = (2, 5)
_SUM: Final = 0.2
"""Of what is several words, the share that is a sum."""
_GAP_S: Final = (0.0, 0.35)
"""Between words in a row."""


class Reader:
    """Makes readings in ``language``, one after the other; the same ones from the same ``seed``."""

    def __init__(self, language: Language, seed: int) -> None:
        self._language = language
        self._tongue = TONGUES[language]
        self._random = random.Random(seed)
        self._numpy = np.random.default_rng(seed)
        self._talk = Talk(self._talker, FRAMES * FRAME_SAMPLES, self._random, self._numpy)

    def scene(self) -> Scene:
        """One reading, in one place."""
        scene, random_ = Scene(), self._random
        if random_.random() < _SILENT:
            return scene
        speak = self._speaker()
        at = random_.randint(2, 20)
        while at < FRAMES - 8:
            if random_.random() < _ANOTHER:
                speak = self._speaker()
            if random_.random() < _DISTURBED:
                at = self._disturb(scene, at)
                continue
            at = scene.say(speak(), at, random_) + self._pause()
        return scene

    def heard(self, scene: Scene) -> FloatArray:
        """What a server gets to hear of it."""
        if not scene.heard:
            if self._random.random() < talk.SHARE:
                return sounds.captured(self._talk.some(len(scene.person)), self._numpy)
            return sounds.background(len(scene.person), self._numpy, self._random.uniform(-90, -14))
        return sounds.captured(scene.person, self._numpy)

    def _speaker(self) -> Callable[[], Spoken]:
        """What the next person says, each time something else."""
        voice = voices.trained(self._random, self._language)
        return lambda: espeak.speak(self._said() + self._random.choice(_ENDS), voice)

    def _said(self) -> str:
        if self._random.random() < _WORDS:
            return self._random.choice(self._tongue.vocabulary())
        return self._tongue.trained(self._random)

    def _talker(self) -> Callable[[], Spoken]:
        """What one of the others says: in any of the languages."""
        language: Language = self._random.choice(get_args(Language))
        voice, tongue = voices.trained(self._random, language), TONGUES[language]
        return lambda: espeak.speak(tongue.trained(self._random), voice)

    def _disturb(self, scene: Scene, at: int) -> int:
        """Noise, a tune or others' talk from frame ``at`` on; the frame at which the person may go on."""
        if self._random.random() < talk.SHARE:
            disturbance = self._talk.some(int(self._random.uniform(*talk.LASTS_S) * MODEL_RATE_HZ))
        else:
            count = int(self._random.uniform(0.2, 2.5) * MODEL_RATE_HZ)
            disturbance = sounds.background(count, self._numpy, self._random.uniform(-40, -14))
        room = scene.person[at * FRAME_SAMPLES :][: len(disturbance)]
        room += disturbance[: len(room)]
        return at + len(disturbance) // FRAME_SAMPLES + self._random.randint(2, 8)

    def _pause(self) -> int:
        return self._random.randint(2, 16) if self._random.random() < 0.9 else self._random.randint(16, 60)


class WordReader(Reader):
    """English words alone, as one answers a question or dictates a list: a model that has heard nothing but sentences
    takes each for the sentence that it begins. ``bank``: whose people say them, beside espeak-ng's voices."""

    def __init__(self, seed: int, bank: Bank) -> None:
        super().__init__("en", seed)
        self._bank = bank

    def _speaker(self) -> Callable[[], Spoken]:
        random_ = self._random
        person = self._bank.voice(random_) if self._bank.voices and random_.random() < _PEOPLE else ""
        voice = voices.trained(random_)
        return lambda: self._some(person, voice)

    def _some(self, person: str, voice: Voice) -> Spoken:
        """A word, or several in a row."""
        random_ = self._random
        size = Phrase.size(random_)
        if random_.random() < _ALONE:
            return self._word(person, voice, size, ())
        if random_.random() < _SUM:
            wanted: list[Sequence[str]] = [phrases.NUMBERS, ("plus", "minus"), phrases.NUMBERS]
        else:
            among: Sequence[str] = random_.choice((phrases.NUMBERS, phrases.DAYS, ()))
            wanted = [among] * random_.randint(*_IN_A_ROW)
        words = [self._word(person, voice, size, among) for among in wanted]
        return joined(words, [random_.uniform(*_GAP_S) for _ in words[1:]])

    def _word(self, person: str, voice: Voice, size: float, among: Sequence[str]) -> Spoken:
        """One of ``among``, or any; of a person, who has not said them all, by ``voice`` where there is none."""
        random_ = self._random
        phrase = self._bank.word(person, among, random_) if person else None
        if phrase is not None:
            return phrase.sized(size)
        return espeak.speak(random_.choice(among) if among else manners.word(random_), voice)


def make_file(
    directory: Path,
    checkpoint: Path,
    language: Language,
    seed: int,
    count: int = dataset.CONVERSATIONS,
    bank: Path | None = None,
) -> Path:
    """The first ``count`` readings of ``seed``, unless they are there. ``checkpoint``: whose codec hears them.
    ``bank``: English words alone are read, by those whose phrases lie there."""
    path = dataset.path_of(directory, seed)
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    reader = Reader(language, seed) if bank is None else WordReader(seed, _bank(bank))
    words = {word: index for index, word in enumerate(TONGUES[language].vocabulary())}
    persons, saids = [], []
    with no_compile():
        mimi = _codec(checkpoint)
        for begun in range(0, count, _BATCH):
            scenes = [reader.scene() for _ in range(min(_BATCH, count - begun))]
            heard = np.stack([reader.heard(scene) for scene in scenes])
            persons.append(codec.semantic_latents(mimi, torch.from_numpy(heard)[:, None]).numpy().astype(np.float16))
            saids += [dataset.said_in(scene, words) for scene in scenes]
    return dataset.write_file(path, person=np.concatenate(persons), said=np.stack(saids))


def make(
    directory: Path,
    checkpoint: Path,
    language: Language,
    seeds: range,
    count: int = dataset.CONVERSATIONS,
    processes: int = 0,
    bank: Path | None = None,
) -> None:
    """The files of ``seeds``, ``count`` readings each, as of :func:`make_file`, by so many ``processes``; 0: as many as
    there are processors."""
    wanted = [
        (directory, checkpoint, language, seed, count, bank)
        for seed in seeds
        if not dataset.path_of(directory, seed).exists()
    ]
    if not wanted:
        return
    with get_context("spawn").Pool(min(len(wanted), processes or os.cpu_count() or 1), dataset.one_thread) as pool:
        pool.starmap(make_file, wanted, chunksize=1)


@lru_cache(maxsize=1)
def _bank(directory: Path) -> Bank:
    """Once in a process."""
    return Bank(directory)


@lru_cache(maxsize=1)
def _codec(checkpoint: Path) -> MimiModel:
    """Once in a process."""
    return load_codec(checkpoint)
