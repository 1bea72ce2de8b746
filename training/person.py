"""Who examines the model: a person with a voice, a microphone and a list of things to ask.

Owns the conduct of a conversation: speak, listen until the answer is over, judge, ask the next thing. Time is an
argument, in seconds, so that a conversation may go faster than it would among people. Knows no model and no
network.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Final, Literal, Protocol

import numpy as np

from lab.pico.phrases import NUMBERS
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, silence
from training import sounds, voices
from training.examination import (
    COUNT,
    GO_ON,
    PACE_S,
    STOP,
    Finding,
    Heard,
    Task,
    counted,
    judge_answer,
    judge_count_begun,
    judge_stop,
)

Condition = Literal["clean", "telephone", "lossy", "room", "noisy", "microphone"]
"""What happens to the sound on its way. ``noisy``: noise 10 dB below the voice. ``microphone``: of a laptop or
a phone, across a room, with a fan, its peaks at -45 to -3 dB against full scale, and in half of the phrases with a gain
that is too high at first."""

_NOISE_BELOW_DB: Final[dict[Condition, tuple[float, float]]] = {"noisy": (10, 10), "microphone": (15, 30)}
_AUDIBLE_RMS: Final = 0.01
"""-40 dB against full scale: what counts as sound, 20 dB below the model's voice."""
_WINDOW: Final = MODEL_RATE_HZ // 100
_ANSWER_WITHIN_S: Final = 3.0
"""There is none if it has not begun by then."""
_LONGEST_S: Final = 10.0
"""The person does not listen for longer, but to a count."""
_NOISE_S: Final = 20
_LOST: Final = 0.05
_TAIL: Final = MODEL_RATE_HZ // 4
"""After a phrase, for the room to die away."""

_Talk = Generator[Callable[[], bool], None, None]
"""A conversation: yields what it waits for."""


class Caller(Protocol):
    """A person who has a conversation with the model, at any pace; times in seconds, of any one clock."""

    @property
    def done(self) -> bool: ...

    def microphone(self, count: int, now_s: float) -> FloatArray:
        """The next ``count`` samples at 24 kHz, the last of which is captured at ``now_s``."""
        ...

    def hear(self, pcm: FloatArray, start_s: float) -> None:
        """The model's voice, whole windows of 10 ms, from ``start_s`` on."""
        ...

    def read(self, text: str, now_s: float) -> None:
        """What the model has just written."""
        ...


def loudness(random_: random.Random, condition: Condition = "clean") -> np.float32:
    """Of a voice, as a factor: people are as loud as they like, and microphones as sensitive."""
    quietest_db, loudest_db = (-39, 3) if condition == "microphone" else (-16, 2)
    return np.float32(10 ** (random_.uniform(quietest_db, loudest_db) / 20))


def light_noise(
    count: int,
    gain: np.float32,
    random_: random.Random,
    generator: np.random.Generator,
    condition: Condition = "clean",
) -> FloatArray:
    """``count`` samples, below a voice with ``gain``: by 25 to 40 dB, or as ``condition`` says."""
    below_db = _NOISE_BELOW_DB.get(condition, (25, 40))
    level_db = 20 * np.log10(0.1 * gain) - random_.uniform(*below_db)
    return sounds.noise(count, generator) * np.float32(10 ** (level_db / 20))


def distorted(pcm: FloatArray, voice: FloatArray, condition: Condition, generator: np.random.Generator) -> FloatArray:
    """``pcm`` under ``condition``; ``voice``: what of it is not noise."""
    if condition == "room":
        pcm = pcm - voice + sounds.room(voice, generator)
    elif condition == "telephone":
        pcm = sounds.telephone(pcm)
    elif condition == "lossy":
        pcm = sounds.lose_packets(pcm, _LOST, generator)
    elif condition == "microphone":
        pcm = sounds.coloured(pcm - voice + sounds.room(voice, generator), generator)
        pcm = sounds.controlled(pcm, generator) if generator.random() < 0.5 else pcm
    return np.clip(pcm, -1, 1).astype(np.float32)


class Ear:
    """When there was sound, and all of it, on a timeline that the caller names."""

    def __init__(self) -> None:
        self._blocks: list[FloatArray] = []
        self.sounds: list[float] = []
        self.from_s: float | None = None

    def push(self, pcm: FloatArray, start_s: float) -> None:
        """``pcm``: whole windows of 10 ms."""
        if self.from_s is None:
            self.from_s = start_s
        self._blocks.append(pcm)
        loud = np.sqrt(np.mean(pcm.reshape(-1, _WINDOW) ** 2, axis=1)) > _AUDIBLE_RMS
        self.sounds += [start_s + 0.01 * int(index) for index in np.flatnonzero(loud)]

    @property
    def pcm(self) -> FloatArray:
        return np.concatenate(self._blocks) if self._blocks else silence(0)


class Person:
    """One conversation. ``seed`` decides the voice, the level, the noise and the pauses. ``patience_s``: after so much
    silence an answer is over; longer where its words may be late. ``examiner``: whose voice, of those that
    :mod:`training.voices` knows."""

    def __init__(
        self,
        tasks: Sequence[Task],
        condition: Condition,
        seed: int,
        patience_s: float = 1.0,
        examiner: str = voices.ESPEAK,
    ) -> None:
        self._random = random.Random(seed)
        self._generator = np.random.default_rng([seed, 77])
        self._condition = condition
        self._patience_s = patience_s
        self._voice = voices.held_out(self._random, examiner)
        self._gain = loudness(self._random, condition)
        self._noise = self._make_noise()
        self._at = 0
        self._mouth: deque[FloatArray] = deque()
        self._now_s = 0.0
        self._heard = Heard(0.0)
        self._ear = Ear()
        self._letters: list[tuple[float, str]] = []
        self.findings: list[Finding] = []
        self._talk = self._converse(tasks)
        self._waits_for: Callable[[], bool] = lambda: True
        # All at once, for a call in real time has none for it.
        said = list(dict.fromkeys(text for task in tasks for text in (task.said, task.stop, task.go_on) if text))
        spoken = voices.sounds(said, self._voice)
        self._spoken = {text: one.pcm * self._gain for text, one in zip(said, spoken, strict=True)}
        self._said = ""
        self._done = False

    @property
    def done(self) -> bool:
        return self._done

    @property
    def voice(self) -> str:
        return self._voice.name

    @property
    def saying(self) -> str:
        """What is being said; empty while nothing is."""
        return self._said if self._now_s < self._heard.phrase_end_s else ""

    def microphone(self, count: int, now_s: float) -> FloatArray:
        self._now_s = now_s - count / MODEL_RATE_HZ
        while not self._done and self._waits_for():
            try:
                self._waits_for = next(self._talk)
            except StopIteration:
                self._done = True
        return self._capture(count)

    def hear(self, pcm: FloatArray, start_s: float) -> None:
        self._ear.push(pcm, start_s)

    def read(self, text: str, now_s: float) -> None:
        self._letters += [(now_s, letter) for letter in text]

    def _converse(self, tasks: Sequence[Task]) -> _Talk:
        for task in tasks:
            yield from self._pause(self._random.uniform(0.3, 1.2))
            if task.topic == STOP:
                yield from self._stop_a_count(task)
            else:
                yield from self._ask(task.topic, task.said, task.expected)

    def _ask(self, topic: str, said: str, expected: str) -> _Talk:
        yield from self._say(said)
        yield from self._listen(len(expected.split()) if topic in {COUNT, GO_ON} else 0)
        self.findings.append(judge_answer(topic, said, self.voice, expected, self._take()))

    def _stop_a_count(self, task: Task) -> _Talk:
        yield from self._say(task.said)
        limit_s = self._now_s + _ANSWER_WITHIN_S
        yield lambda: bool(self._ear.sounds) or self._now_s > limit_s
        yield from self._pause(task.wait_s)
        begun = judge_count_begun(task, self.voice, self._take())
        self.findings.append(begun)
        if not begun.right:
            yield from self._listen()
            return
        written = [word for _, word in self._words()]
        yield from self._say(task.stop)
        yield from self._listen(task.count_to)
        yield from self._pause(self._random.uniform(0.0, 1.0))
        self.findings.append(judge_stop(task, self.voice, self._take()))
        written += [word for _, word in self._words()]
        last = NUMBERS.index(written[-1]) if written[-1] in NUMBERS else task.count_to
        if last < task.count_to:
            yield from self._ask(GO_ON, task.go_on, counted(task.count_to, last + 1))

    def _pause(self, seconds: float) -> _Talk:
        until_s = self._now_s + seconds
        yield lambda: self._now_s >= until_s

    def _say(self, text: str) -> _Talk:
        """Until the last sample is out. Forgets what was heard before."""
        spoken = self._spoken[text]
        lead = self._random.randrange(FRAME_SAMPLES)
        clip = np.concatenate((silence(lead), spoken, silence(_TAIL)))
        self._said = text
        self._ear, self._letters = Ear(), []
        self._heard = Heard(self._now_s + (lead + len(spoken)) / MODEL_RATE_HZ)
        self._mouth.append(self._distorted(clip + self._next_noise(len(clip)), clip))
        yield lambda: self._now_s >= self._heard.phrase_end_s

    def _listen(self, numbers: int = 0) -> _Talk:
        """Until the answer is over, or there is none. ``numbers``: of a count that is expected."""
        end_s = self._heard.phrase_end_s
        longest_s = _LONGEST_S + numbers * PACE_S

        def over() -> bool:
            last_s = max([end_s, *self._ear.sounds[-1:], *(at_s for at_s, _ in self._letters[-1:])])
            nothing = not self._ear.sounds and not self._letters
            return (
                self._now_s > last_s + (_ANSWER_WITHIN_S if nothing else self._patience_s)
                or self._now_s > end_s + longest_s
            )

        yield over

    def _take(self) -> Heard:
        """What has been heard since the phrase began."""
        return replace(
            self._heard,
            words=self._words(),
            sounds=list(self._ear.sounds),
            pcm=self._ear.pcm,
            pcm_from_s=self._ear.from_s or 0.0,
        )

    def _words(self) -> list[tuple[float, str]]:
        """Each with the time of its first letter."""
        words: list[tuple[float, str]] = []
        inside = False
        for at_s, letter in self._letters:
            belongs = letter.isalpha() or letter == "'"
            if belongs and inside:
                words[-1] = (words[-1][0], words[-1][1] + letter.lower())
            elif belongs:
                words.append((at_s, letter.lower()))
            inside = belongs
        return words

    def _capture(self, count: int) -> FloatArray:
        """What is to be said, or the noise of the place."""
        parts: list[FloatArray] = []
        while count:
            if self._mouth:
                clip = self._mouth.popleft()
                if len(clip) > count:
                    self._mouth.appendleft(clip[count:])
                parts.append(clip[:count])
            else:
                parts.append(self._next_noise(count, distorted=True))
            count -= len(parts[-1])
        return np.concatenate(parts)

    def _make_noise(self) -> tuple[FloatArray, FloatArray]:
        """As it is, and as the condition leaves it."""
        noise = light_noise(_NOISE_S * MODEL_RATE_HZ, self._gain, self._random, self._generator, self._condition)
        return noise, noise if self._condition == "microphone" else self._distorted(noise, noise)

    def _next_noise(self, count: int, *, distorted: bool = False) -> FloatArray:
        noise = self._noise[distorted]
        indexes = (self._at + np.arange(count)) % len(noise)
        if distorted:
            self._at += count
        return noise[indexes]

    def _distorted(self, pcm: FloatArray, voice: FloatArray) -> FloatArray:
        return distorted(pcm, voice, self._condition, self._generator)
