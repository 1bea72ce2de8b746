"""Examines a model that is stepped directly, a batch of conversations at a time, faster than they would last.

Owns the loop and its clock: a frame that goes in with step i is captured at that step's end, and what the step
makes is heard from then on. Knows no network: what that does to a conversation, ``calls.py`` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, silence
from rtc_server.engine.model import StreamingModel
from training import sounds
from training.examination import Finding
from training.person import Ear, Person

_FRAME_S: Final = FRAME_MS / 1000
_SCENE_S: Final = 20
_MERGED_S: Final = 2.0
"""Sounds and words closer to each other than this are one answer."""


def examine(
    model: StreamingModel, people: Iterable[Person], progress: Callable[[Person], None] = lambda _: None
) -> list[Finding]:
    """Everybody's conversation, as many at a time as the model has rows. ``progress`` is told of each that ends."""
    waiting = iter(people)
    seats = [next(waiting, None) for _ in range(model.info.slots)]
    times = np.zeros(len(seats))
    findings: list[Finding] = []
    model.reset(np.ones(len(seats), dtype=np.bool_))
    while True:
        for row, sitting in enumerate(seats):
            if sitting is not None and sitting.done:
                findings += sitting.findings
                progress(sitting)
                seats[row], times[row] = next(waiting, None), 0.0
                model.reset(np.arange(len(seats)) == row)
        if not any(seats):
            return findings
        _step(model, seats, times)


def _step(model: StreamingModel, seats: list[Person | None], times: np.ndarray[Any, Any]) -> None:
    pcm = np.zeros((len(seats), FRAME_SAMPLES), dtype=np.float32)
    times += _FRAME_S
    for row, person in enumerate(seats):
        if person is not None:
            pcm[row] = person.microphone(FRAME_SAMPLES, times[row])
    outputs = model.step(pcm, np.array([person is not None for person in seats]))
    for row, (person, output) in enumerate(zip(seats, outputs, strict=True)):
        if person is None or output is None:
            continue
        person.read(output.text, times[row])
        person.hear(silence(FRAME_SAMPLES) if output.pcm is None else output.pcm, times[row])


@dataclass(frozen=True, slots=True)
class FalseAnswer:
    """``scene``: what was to be heard; ``at_s``: when in it the model answered, and what it wrote."""

    scene: str
    at_s: float
    text: str


def disturb(model: StreamingModel, seconds: float, seed: int) -> list[FalseAnswer]:
    """What the model says to so many seconds, over all rows, of silence, noise and music."""
    rows = model.info.slots
    frames = int(np.ceil(seconds / rows / _FRAME_S))
    scenes = [_scenes(frames, np.random.default_rng([seed, 4242, row])) for row in range(rows)]
    model.reset(np.ones(rows, dtype=np.bool_))
    ears = [Ear() for _ in range(rows)]
    written: list[list[tuple[float, str]]] = [[] for _ in range(rows)]
    for frame in range(frames):
        now_s = frame * _FRAME_S
        pcm = np.stack([one.pcm[frame * FRAME_SAMPLES :][:FRAME_SAMPLES] for one in scenes])
        for row, output in enumerate(model.step(pcm, np.ones(rows, dtype=np.bool_))):
            assert output is not None
            if output.pcm is not None:
                ears[row].push(output.pcm, now_s)
            if output.text:
                written[row].append((now_s, output.text))
    return [
        answer
        for scene, ear, texts in zip(scenes, ears, written, strict=True)
        for answer in _answers(scene, ear.sounds, texts)
    ]


@dataclass(frozen=True, slots=True)
class _Scenes:
    pcm: FloatArray
    names: tuple[str, ...]
    """One for each :data:`_SCENE_S` seconds."""


def _scenes(frames: int, random: np.random.Generator) -> _Scenes:
    """Silence, noise and music, a third of the time each, beginning with any of them."""
    count = frames * FRAME_SAMPLES
    length = _SCENE_S * MODEL_RATE_HZ
    parts: list[FloatArray] = []
    names: list[str] = []
    kinds = ("silence", "noise", "music")
    first = int(random.integers(3))
    while sum(len(part) for part in parts) < count:
        name = kinds[(first + len(parts)) % 3]
        names.append(name)
        if name == "silence":
            parts.append(silence(length))
        elif name == "noise":
            parts.append(sounds.noise(length, random) * _amplitude(random.uniform(-60, -25)))
        else:
            parts.append(sounds.music(length, random) * _amplitude(random.uniform(-45, -15)))
    return _Scenes(np.clip(np.concatenate(parts)[:count], -1, 1), tuple(names))


def _amplitude(level_db: float) -> np.float32:
    return np.float32(10 ** (level_db / 20))


def _answers(scene: _Scenes, sounded: list[float], written: list[tuple[float, str]]) -> list[FalseAnswer]:
    events = sorted([*written, *((at_s, "") for at_s in sounded)])
    answers: list[FalseAnswer] = []
    last_s = -np.inf
    for at_s, text in events:
        if at_s - last_s > _MERGED_S:
            answers.append(FalseAnswer(scene.names[int(at_s // _SCENE_S)], at_s, text))
        else:
            answers[-1] = FalseAnswer(answers[-1].scene, answers[-1].at_s, answers[-1].text + text)
        last_s = at_s
    return answers
