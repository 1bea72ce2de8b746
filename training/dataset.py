"""Conversations as the language model sees them: text, its own codes, and what it hears.

What it hears is kept as latents, before they are quantized, so that every reading can quantize them a little
differently. Owns the files of a data set, each made from a seed of its own, so that a data set travels as
numbers and can grow while a training reads it. Knows no loss.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
import sentencepiece
import torch
from moshi.models.compression import MimiModel
from moshi.utils.compile import no_compile

from lab.pico import own_voice, phrases
from rtc_server.audio import FRAME_SAMPLES
from training import codec
from training.bank import Bank
from training.checkpoint import load_codec, load_tokenizer
from training.conversations import FRAMES, Playwright, Scene

PADDING: Final = 3
BOUNDARY: Final = 0
TAIL: Final = 4
"""Frames after a part until its codes are those of silence."""
_SETTLE: Final = 25
_BATCH: Final = 8
CONVERSATIONS: Final = 160
"""In one file."""

Array = np.ndarray[Any, np.dtype[np.int16]]
Latents = np.ndarray[Any, np.dtype[np.float16]]


@dataclass(frozen=True, slots=True)
class Readings:
    """What a person says, and nothing else: ``person``: latents, [readings, dimension, frames]; ``said``: [readings,
    frames], the place of a word in the language's vocabulary in the frame in which it begins, else -1."""

    person: Latents
    said: Array

    def __len__(self) -> int:
        return len(self.said)


@dataclass(frozen=True, slots=True)
class Conversations(Readings):
    """``text`` and ``heard``: [conversations, frames]; ``own``: [conversations, codebooks, frames]. ``heard`` holds the
    index of a word of the person in the frame after it ends, else -1."""

    text: Array
    own: Array
    heard: Array


Made = TypeVar("Made", bound=Readings)


class OwnCodes:
    """What the model's own codes are when it says a part, when it is cut, and when it is silent."""

    def __init__(self, mimi: MimiModel) -> None:
        self._mimi = mimi
        self._made: dict[tuple[str, int], Array] = {}

    @cached_property
    def silence(self) -> Array:
        """The codes of a frame of silence, [codebooks, 1]."""
        codes: Array = self._encode([np.zeros(2 * _SETTLE * FRAME_SAMPLES, dtype=np.float32)])[0]
        return codes[:, -1:]

    def prepare(self, wanted: Sequence[tuple[str, int]]) -> None:
        """Make the codes of all parts and cuts in ``wanted`` that are not there yet."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self._made]
        before = np.zeros(_SETTLE * FRAME_SAMPLES, dtype=np.float32)
        longest = max((frames for _, frames in missing), default=0) + TAIL
        for first in range(0, len(missing), 32):
            keys = missing[first : first + 32]
            clips = []
            for text, frames in keys:
                pcm = own_voice.cut(own_voice.part(text).pcm, frames)[: (frames + TAIL) * FRAME_SAMPLES]
                clip = np.zeros((_SETTLE + longest) * FRAME_SAMPLES, dtype=np.float32)
                clip[len(before) : len(before) + len(pcm)] = pcm
                clips.append(clip)
            for (text, frames), codes in zip(keys, self._encode(clips), strict=True):
                self._made[text, frames] = codes[:, _SETTLE : _SETTLE + frames + TAIL]

    def sequence(self, uttered: Sequence[tuple[int, str, int]], frames: int) -> Array:
        """The codes of ``frames`` frames, [codebooks, frames], in which parts are ``uttered``: from which frame
        on, which, and how much of it."""
        self.prepare([(text, length) for _, text, length in uttered])
        codes = np.repeat(self.silence, frames, axis=1)
        for at, text, length in uttered:
            if at < frames:
                made = self._made[text, length][:, : frames - at]
                codes[:, at : at + made.shape[1]] = made
        return codes

    def of(self, scene: Scene) -> Array:
        """The codes of the whole of ``scene``, [codebooks, frames]."""
        return self.sequence([(one.frame, one.text, one.frames) for one in scene.uttered], FRAMES)

    @torch.no_grad()
    def _encode(self, clips: Sequence[np.ndarray[Any, Any]]) -> Array:
        latents = codec.encoded(self._mimi, torch.from_numpy(np.stack(clips))[:, None])
        return self._mimi.quantizer.encode(latents).numpy().astype(np.int16)


def heard_words() -> dict[str, int]:
    """An index for every word of every question; strange words share the last."""
    words = sorted(
        {word for question in phrases.questions() for text in question.wordings for word in text.lower().split()}
    )
    return {word: index for index, word in enumerate(words)}


def text_of(scene: Scene, pieces: dict[str, int]) -> Array:
    """The inner monologue: a word in the frame in which it begins, a boundary before it where there is room."""
    text = np.full(FRAMES, PADDING, dtype=np.int16)
    begins = {one.frame for one in scene.uttered}
    before = -2
    for frame, word in sorted(scene.words()):
        if frame >= FRAMES:
            break
        if frame - 1 > before and frame not in begins and text[frame - 1] == PADDING:
            text[frame - 1] = BOUNDARY
        text[frame] = pieces[word]
        before = frame
    return text


def pieces_of(tokenizer: sentencepiece.SentencePieceProcessor) -> dict[str, int]:
    """The one token of each word that the model says."""
    words = {word for text in own_voice.all_parts() for _, word in own_voice.part(text).words}
    pieces = {}
    for word in words:
        ids = tokenizer.encode(word)
        assert len(ids) == 1, (word, ids)
        pieces[word] = ids[0]
    return pieces


@dataclass(frozen=True, slots=True)
class Sources:
    """What conversations are made of. ``checkpoint``: whose codec hears, and whose tokenizer writes. ``voice``: the one
    whose codec gave the model's own voice its codes (:func:`training.checkpoint.voice_of`). ``bank``: what people's
    voices say."""

    checkpoint: Path
    voice: Path
    bank: Path


def path_of(directory: Path, seed: int) -> Path:
    """Where the conversations of ``seed`` lie."""
    return directory / f"conversations-{seed:06d}.npz"


def make_file(directory: Path, sources: Sources, seed: int, count: int = CONVERSATIONS) -> Path:
    """The first ``count`` conversations of ``seed``, unless they are there."""
    path = path_of(directory, seed)
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    with no_compile():
        mimi, own, pieces, bank = _loaded(sources)
        words, vocabulary = heard_words(), {word: index for index, word in enumerate(phrases.vocabulary())}
        playwright = Playwright(seed, bank)
        texts, owns, persons, heards, saids = [], [], [], [], []
        for begun in range(0, count, _BATCH):
            scenes = [playwright.scene() for _ in range(min(_BATCH, count - begun))]
            own.prepare([(one.text, one.frames) for scene in scenes for one in scene.uttered])
            heard = np.stack([playwright.heard(scene) for scene in scenes])
            persons.append(codec.semantic_latents(mimi, torch.from_numpy(heard)[:, None]).numpy().astype(np.float16))
            texts += [text_of(scene, pieces) for scene in scenes]
            owns += [own.of(scene) for scene in scenes]
            heards += [_heard(scene, words) for scene in scenes]
            saids += [said_in(scene, vocabulary) for scene in scenes]
    return write_file(
        path,
        text=np.stack(texts),
        own=np.stack(owns),
        person=np.concatenate(persons),
        heard=np.stack(heards),
        said=np.stack(saids),
    )


def write_file(path: Path, **arrays: Any) -> Path:
    """``arrays`` by their names in ``path``, which is there as a whole or not at all."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    unfinished.replace(path)
    return path


@lru_cache(maxsize=1)
def _loaded(sources: Sources) -> tuple[MimiModel, OwnCodes, dict[str, int], Bank]:
    """The codec, the codes of the parts so far, the tokens, and what people say: once in a process."""
    own = OwnCodes(load_codec(sources.voice))
    return load_codec(sources.checkpoint), own, pieces_of(load_tokenizer(sources.checkpoint)), Bank(sources.bank)


def _heard(scene: Scene, words: dict[str, int]) -> Array:
    heard = np.full(FRAMES, -1, dtype=np.int16)
    for one in scene.heard:
        heard[one.frame] = words.get(one.word, len(words))
    return heard


def said_in(scene: Scene, vocabulary: dict[str, int]) -> Array:
    """In the frame in which a word of ``vocabulary`` begins, its number there; else -1."""
    said = np.full(FRAMES, -1, dtype=np.int16)
    free = 0
    for one in (one for one in scene.heard if one.word in vocabulary):  # others are not written
        frame = max(one.begins, free)  # two short words may begin in one frame
        if frame < FRAMES:
            said[frame] = vocabulary[one.word]
        free = frame + 1
    return said


def make(directory: Path, sources: Sources, seeds: range, count: int = CONVERSATIONS) -> None:
    """The files of ``seeds``, ``count`` conversations each, as many at a time as there are processors."""
    wanted = [(directory, sources, seed, count) for seed in seeds if not path_of(directory, seed).exists()]
    if not wanted:
        return
    with get_context("spawn").Pool(min(len(wanted), os.cpu_count() or 1), one_thread) as pool:
        pool.starmap(make_file, wanted, chunksize=1)


def one_thread() -> None:
    """Of torch, in a process of several."""
    torch.set_num_threads(1)


def drawn(
    directories: Sequence[Path], kind: type[Made], batch: int, seed: int, step: int
) -> Iterator[tuple[list[tuple[Made, int]], np.random.Generator]]:
    """For ever, ``batch`` conversations each: their files, of which ``kind`` is read, and places in them, in an order
    that ``seed`` gives from ``step`` on, and the generator of that order. Files that come later are taken up at the
    next round."""
    files = Files(directories, kind)
    while True:
        made = [(file, index) for file in files.all() for index in range(len(file))]
        if len(made) < batch:
            where = ", ".join(map(str, directories))
            raise ValueError(f"{where} has {len(made)} conversations, fewer than a batch of {batch}")
        random = np.random.default_rng([seed, step])
        order = random.permutation(len(made))
        for first in range(0, len(order) - batch + 1, batch):
            yield [made[place] for place in order[first : first + batch]], random
            step += 1


class Files(Generic[Made]):
    """The files in ``directories``, each read once, and of each what ``kind`` has."""

    def __init__(self, directories: Sequence[Path], kind: type[Made]) -> None:
        self._directories = directories
        self._kind = kind
        self._read: dict[Path, Made] = {}

    def all(self) -> list[Made]:
        """Those that are there by now."""
        for path in [path for one in self._directories for path in sorted(one.glob("conversations-*.npz"))]:
            if path not in self._read:
                with np.load(path) as file:
                    self._read[path] = self._kind(**{field.name: file[field.name] for field in fields(self._kind)})
        return list(self._read.values())
