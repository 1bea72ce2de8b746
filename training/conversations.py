"""Conversations to learn from: who says what when, for a person and for the model, frame by frame.

Owns when the model answers, stops and goes on. A conversation is made as a score first (:class:`Scene`), then
as sound for the person and as codes for the model. Knows no network and no loss.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from lab.pico import own_voice, phrases
from lab.pico.phrases import Reply
from lab.speech import espeak
from lab.speech.spoken import Spoken, Voice
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from training import manners, sounds, talk, voices
from training.bank import STRANGE, Bank
from training.talk import Talk

FRAMES: Final = 400
"""Of one conversation: 32 s."""
ANSWER_AFTER: Final = 3
"""Whole frames of silence after the end of a phrase before the model answers."""
STOP_AFTER: Final = 2
"""The same after the word "stop", before it falls silent: whatever else the person may say."""
_TOPICS: Final = {
    "sums": 18,
    "count": 24,
    "repeat": 12,
    "opposites": 10,
    "days": 8,
    "colours": 8,
    "yes and no": 10,
    "greeting": 8,
    "self": 12,
    "facts": 4,
    "help": 4,
    "go on": 4,
    "stop": 4,
    STRANGE: 22,
}
"""How often each is asked for, in parts."""
_PEOPLE: Final = 0.5
"""Of the speakers, the share whose voice was made from a person's."""
_EMPTY: Final = 0.07
"""Of the scenes, the share in which no person speaks to the model."""
_AT_ONCE: Final = 0.15
"""Of the scenes, the share that begins with the first frame, as a program's does that sends a file."""
_DISTURBED: Final = 0.16
"""Of the turns, the share that something else than a person takes."""
_NOT_UNDERSTOOD: Final = Reply("say", (phrases.NOT_UNDERSTOOD,))


@dataclass(frozen=True, slots=True)
class Heard:
    """A word of the person: the frame in which it ends, the word, and the frame in which it begins."""

    frame: int
    word: str
    begins: int


@dataclass(frozen=True, slots=True)
class Uttered:
    """A part of the model's speech: from which frame on, and how many frames of it are left after a cut."""

    frame: int
    text: str
    frames: int


@dataclass
class Scene:
    """``person``: what the microphone hears, clean. ``uttered``: what the model says."""

    person: FloatArray = field(default_factory=lambda: np.zeros(FRAMES * FRAME_SAMPLES, dtype=np.float32))
    heard: list[Heard] = field(default_factory=list)
    uttered: list[Uttered] = field(default_factory=list)

    def cut(self, frame: int) -> None:
        """The model falls silent from ``frame`` on."""
        self.uttered = [
            Uttered(one.frame, one.text, min(one.frames, frame - one.frame))
            for one in self.uttered
            if one.frame < frame
        ]

    def say(self, spoken: Spoken, at: int, random_: random.Random) -> int:
        """The person says ``spoken``, from somewhere in frame ``at`` on; the frame with which it is over."""
        first = at * FRAME_SAMPLES + random_.randrange(FRAME_SAMPLES)
        room = self.person[first : first + len(spoken.pcm)]
        room += spoken.pcm[: len(room)]
        ends = [*(start for start, _ in spoken.words[1:]), spoken.duration_s]
        for (start_s, word), end_s in zip(spoken.words, ends, strict=True):
            frame = math.ceil((first + round(end_s * MODEL_RATE_HZ)) / FRAME_SAMPLES)
            if frame < FRAMES:
                begins = (first + round(start_s * MODEL_RATE_HZ)) // FRAME_SAMPLES
                self.heard.append(Heard(frame, word.lower(), begins))
        return math.ceil((first + len(spoken.pcm)) / FRAME_SAMPLES)

    def words(self) -> list[tuple[int, str]]:
        """The model's words by frame."""
        return [
            (one.frame + at, word)
            for one in self.uttered
            for at, word in own_voice.part(one.text).words
            if at < one.frames
        ]


@dataclass(frozen=True, slots=True)
class _Speaker:
    """``voice``: of espeak-ng. ``person``: whose phrases are in the bank, to be used where there are some; empty:
    none."""

    voice: Voice
    person: str


class Playwright:
    """Writes scenes. ``bank``: what people's voices say in most of them."""

    def __init__(self, seed: int, bank: Bank | None = None) -> None:
        self._bank = bank
        self._random = random.Random(seed)
        self._numpy = np.random.default_rng(seed)
        self._talk = Talk(self._talker, FRAMES * FRAME_SAMPLES, self._random, self._numpy)

    def scene(self) -> Scene:
        """One conversation, with one person in one place."""
        scene = Scene()
        if self._random.random() < _EMPTY:
            return scene
        speaker = self._speaker()
        count = _Count()
        at = 0 if self._random.random() < _AT_ONCE else self._random.randint(1, 25)
        while at < FRAMES - 12:
            if self._random.random() < 0.08:
                speaker = self._speaker()
            if self._random.random() < _DISTURBED:
                at = self._disturb(scene, at)
                continue
            spoken, reply = self._ask(self._topic(count, at), speaker)
            at = self._turn(scene, spoken, reply, at, count)
        return scene

    def heard(self, scene: Scene) -> FloatArray:
        """What a server gets to hear of it."""
        if not scene.heard and not scene.uttered:
            if self._random.random() < talk.SHARE:
                return sounds.captured(self._talk.some(len(scene.person)), self._numpy)
            level = self._random.uniform(-60, -14)
            return sounds.background(len(scene.person), self._numpy, level)
        return sounds.captured(scene.person, self._numpy)

    def _speaker(self) -> _Speaker:
        person = ""
        if self._bank and self._bank.voices and self._random.random() < _PEOPLE:
            person = self._bank.voice(self._random)
        return _Speaker(voices.trained(self._random), person)

    def _topic(self, count: _Count, at: int) -> str:
        """What is said at frame ``at``: over a count, mostly "stop"; after one that was stopped, "go on"."""
        topic = self._random.choices(list(_TOPICS), list(_TOPICS.values()))[0]
        if count.sounds_at(at) and self._random.random() < 0.7:
            topic = "stop"
        elif count.left() and self._random.random() < 0.6:
            topic = "go on"
        return topic

    def _ask(self, topic: str, speaker: _Speaker) -> tuple[Spoken, Reply]:
        """A question about ``topic``, or something strange, and what to reply."""
        if self._bank and speaker.person:
            phrase = self._bank.choose(speaker.person, topic, self._random)
            if phrase is not None:
                return phrase.spoken(self._random), phrase.question.reply if phrase.question else _NOT_UNDERSTOOD
        text, reply = self._choose(topic)
        return espeak.speak(text, speaker.voice), reply

    def _choose(self, topic: str) -> tuple[str, Reply]:
        if topic == STRANGE:
            return manners.strangely(self._random), _NOT_UNDERSTOOD
        question = self._random.choice(phrases.by_topic()[topic])
        wordings = question.trained()
        text = self._random.choice(wordings[:1] if self._random.random() < 0.2 else wordings)
        return manners.casually(text, self._random) if self._random.random() < manners.CASUAL else text, question.reply

    def _turn(self, scene: Scene, spoken: Spoken, reply: Reply, at: int, count: _Count) -> int:
        """Say ``spoken`` at frame ``at`` and answer; the frame at which the next one may speak."""
        end = scene.say(spoken, at, self._random)
        if reply.kind == "stop":
            told = next((one.frame for one in scene.heard if one.word == "stop" and one.frame > at), end)
            scene.cut(told + STOP_AFTER)
            count.cut(told + STOP_AFTER)
            return end + STOP_AFTER + self._pause()
        start = end + ANSWER_AFTER + 1
        scene.cut(start)
        count.cut(start)
        after = self._answer(scene, reply, start, count)
        if after - start > 6 and self._random.random() < (0.6 if reply.kind in ("count", "go on") else 0.1):
            return self._random.randint(max(start, at + 4), after)  # the next one speaks over the model's voice
        return after + self._pause()

    def _answer(self, scene: Scene, reply: Reply, start: int, count: _Count) -> int:
        if reply.kind == "count":
            count.begin(reply.count_to)
        if reply.kind in ("count", "go on") and count.left():
            return count.say(scene, start)
        parts = reply.parts if reply.kind == "say" else (phrases.NOTHING_TO_GO_ON_WITH,)
        for part in parts:
            frames = own_voice.part(part).frames
            scene.uttered.append(Uttered(start, part, frames))
            start += frames
        return start

    def _disturb(self, scene: Scene, at: int) -> int:
        """A noise, a tune or others' talk, to which the model should say nothing."""
        first = at * FRAME_SAMPLES
        if self._random.random() < talk.SHARE:
            disturbance = self._talk.some(int(self._random.uniform(*talk.LASTS_S) * MODEL_RATE_HZ))
        else:
            count = int(self._random.uniform(0.2, 2.5) * MODEL_RATE_HZ)
            disturbance = sounds.background(count, self._numpy, self._random.uniform(-40, -14))
        room = scene.person[first : first + len(disturbance)]
        room += disturbance[: len(room)]
        pause = self._random.randint(2, 10) if self._random.random() < 0.7 else 0
        return at + max(1, len(disturbance) // FRAME_SAMPLES + pause)

    def _talker(self) -> Callable[[], Spoken]:
        speaker = self._speaker()
        return lambda: self._ask(STRANGE, speaker)[0]

    def _pause(self) -> int:
        return self._random.randint(2, 9) if self._random.random() < 0.85 else self._random.randint(9, 60)


class _Count:
    """The count that goes on, or that was interrupted and may go on."""

    def __init__(self) -> None:
        self._next, self._last = 1, 0
        self._starts: list[int] = []

    def begin(self, to: int) -> None:
        self._next, self._last, self._starts = 1, to, []

    def left(self) -> bool:
        return self._next <= self._last

    def sounds_at(self, frame: int) -> bool:
        return bool(self._starts) and self._starts[0] <= frame < self._starts[-1] + own_voice.COUNT_FRAMES

    def say(self, scene: Scene, start: int) -> int:
        """The rest of the count from frame ``start`` on; the frame after it."""
        self._starts = []
        for number in range(self._next, self._last + 1):
            word = phrases.NUMBERS[number]
            frames = min(own_voice.part(word).frames, own_voice.COUNT_FRAMES)
            scene.uttered.append(Uttered(start, word, frames))
            self._starts.append(start)
            start += own_voice.COUNT_FRAMES
        self._next = self._last + 1
        return start

    def cut(self, frame: int) -> None:
        """What has not begun by ``frame`` is left to be said."""
        said = sum(start < frame for start in self._starts)
        self._next -= len(self._starts) - said
        self._starts = self._starts[:said]
