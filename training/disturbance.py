"""A caller who never speaks, with silence, noise, music and others' talk around: what the model says then is a false
answer.

Owns the scenes, made of noises, tunes and voices that no part of the training has heard, and what counts as one answer.
Knows no model and no network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

import numpy as np

from lab.pico import phrases
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, silence
from training import sounds, voices
from training.person import Ear

_SCENE_S: Final = 20
_SCENES: Final = ("silence", "noise", "music", "talk")
_LEVELS_DB: Final = {"noise": (-60.0, -25.0), "music": (-45.0, -15.0), "talk": (-60.0, -35.0)}
"""Against full scale, least and most."""
_TALKERS: Final = 3
_MERGED_S: Final = 2.0
"""Sounds and words closer to each other than this are one answer."""


@dataclass(frozen=True, slots=True)
class FalseAnswer:
    """``scene``: what was to be heard; ``at_s``: when the model answered, ``text``: what it wrote."""

    scene: str
    at_s: float
    text: str


class Bystander:
    """``seconds`` of silence, noise, music and other people's talk, a quarter each, beginning with any."""

    def __init__(self, seconds: float, seed: int) -> None:
        random = np.random.default_rng([seed, 4242])
        first = int(random.integers(len(_SCENES)))
        self._scenes = [_SCENES[(first + index) % len(_SCENES)] for index in range(int(np.ceil(seconds / _SCENE_S)))]
        pcm = np.concatenate([_scene(name, random) for name in self._scenes])
        self._pcm = pcm[: int(seconds * MODEL_RATE_HZ)]
        self._at = 0
        self._began_s: float | None = None
        self._ear = Ear()
        self._written: list[tuple[float, str]] = []

    @property
    def done(self) -> bool:
        return self._at >= len(self._pcm)

    def microphone(self, count: int, now_s: float) -> FloatArray:
        if self._began_s is None:
            self._began_s = now_s - count / MODEL_RATE_HZ
        pcm = self._pcm[self._at : self._at + count]
        self._at += count
        return np.pad(pcm, (0, count - len(pcm)))

    def hear(self, pcm: FloatArray, start_s: float) -> None:
        self._ear.push(pcm, start_s)

    def read(self, text: str, now_s: float) -> None:
        if text:
            self._written.append((now_s, text))

    def answers(self) -> list[FalseAnswer]:
        """What the model said, as one answer where there is no pause."""
        answers: list[FalseAnswer] = []
        last_s = -np.inf
        for at_s, text in sorted([*self._written, *((at_s, "") for at_s in self._ear.sounds)]):
            if at_s - last_s > _MERGED_S:
                since_s = max(0.0, at_s - (self._began_s or 0.0))
                scene = self._scenes[min(int(since_s // _SCENE_S), len(self._scenes) - 1)]
                answers.append(FalseAnswer(scene, since_s, text))
            else:
                answers[-1] = replace(answers[-1], text=answers[-1].text + text)
            last_s = at_s
        return answers


def _scene(name: str, random: np.random.Generator) -> FloatArray:
    length = _SCENE_S * MODEL_RATE_HZ
    if name == "silence":
        return silence(length)
    make = {"noise": sounds.noise, "music": sounds.music, "talk": _talk}[name]
    amplitude = np.float32(10 ** (random.uniform(*_LEVELS_DB[name]) / 20))
    pcm: FloatArray = np.clip(make(length, random) * amplitude, -1, 1)
    return pcm


def _talk(count: int, random: np.random.Generator) -> FloatArray:
    """People who talk with each other, three at a time, across the room, with an RMS of one."""
    words = Random(int(random.integers(1 << 30)))
    pcm = silence(count)
    for _ in range(_TALKERS):
        voice, at = voices.held_out(words), int(random.uniform(0, 1) * MODEL_RATE_HZ)
        while at < count:
            (spoken,) = voices.sounds([phrases.strange(words, held_out=True)], voice)
            room = pcm[at : at + len(spoken.pcm)]
            room += spoken.pcm[: len(room)]
            at += len(spoken.pcm) + int(random.uniform(0.1, 1.0) * MODEL_RATE_HZ)
    pcm = sounds.room(pcm, random)
    return np.asarray(pcm / np.sqrt(np.mean(pcm**2)), dtype=np.float32)
