"""What the model is asked in an examination, and what counts as right.

Owns the drawing of tasks, balanced over topics, and the judgement of what came back. Knows no sound and no
model: an answer is words with the times at which they were written, and the times at which there was sound.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from lab.pico import own_voice, phrases
from lab.pico.phrases import Question, normalised
from rtc_server.audio import FRAME_MS, MODEL_RATE_HZ, FloatArray, silence
from training.voices import examiner_of

STRANGE: Final = "not understood"
NOT_COUNTING: Final = "nothing to go on with"
STOP: Final = "stop"
GO_ON: Final = "go on"
COUNT: Final = "count"
STOP_WITHIN_S: Final = 0.6
"""From the end of "stop" to silence."""
EVEN_WITHIN_S: Final = 0.165
"""By how much the time from one number of a count to the next may differ from the pace of the training: two frames."""
PACE_S: Final = own_voice.COUNT_FRAMES * FRAME_MS / 1000
NOT_UNDERSTOOD: Final = normalised(phrases.NOT_UNDERSTOOD)
_MARGIN_S: Final = 0.2
_LEAST_STOPPED: Final = 8
"""A count that is to be stopped goes at least so far."""
_LEFT_OVER: Final = 4
"""Numbers that are still to come when it is stopped."""


@dataclass(frozen=True, slots=True)
class Task:
    """``said``: what the person says; for a :data:`STOP`, to begin the count up to ``count_to``. ``stop``: then,
    after ``wait_s`` of it; ``go_on``: after that. ``expected``: of a plain answer."""

    topic: str
    said: str
    expected: str = ""
    count_to: int = 0
    stop: str = ""
    go_on: str = ""
    wait_s: float = 0.0


@dataclass(slots=True)
class Heard:
    """What came back from the beginning of one phrase to the end of the answer to it; times in seconds.

    ``phrase_end_s``: of the last sound that the person made. ``words``: when each was written. ``sounds``: when
    each 10 ms that was audible began, in order. ``pcm``: all that was heard, from ``pcm_from_s`` on.
    """

    phrase_end_s: float
    words: list[tuple[float, str]] = field(default_factory=list)
    sounds: list[float] = field(default_factory=list)
    pcm: FloatArray = field(default_factory=lambda: silence(0))
    pcm_from_s: float = 0.0

    @property
    def text(self) -> str:
        return " ".join(word for _, word in self.words)

    @property
    def voice(self) -> FloatArray:
        """The answer, from a little before its first sound to a little after its last."""
        if not self.sounds:
            return silence(0)
        first, last = self.sounds[0] - self.pcm_from_s - _MARGIN_S, self.sounds[-1] - self.pcm_from_s + _MARGIN_S
        return self.pcm[max(0, int(first * MODEL_RATE_HZ)) : int(last * MODEL_RATE_HZ)]

    @property
    def delay_s(self) -> float | None:
        """From the end of the phrase to the first sound: negative if that came too soon, None if it never came."""
        return self.sounds[0] - self.phrase_end_s if self.sounds else None


@dataclass(frozen=True, slots=True)
class Finding:
    """One phrase and what became of it. ``why``: it is not ``right``. ``even``: of a count, whether it kept its
    pace. ``delay_s``: to the first sound; of a stop, to the last. ``pcm``: the answer's sound."""

    topic: str
    said: str
    voice: str
    expected: str
    got: str
    right: bool
    why: str = ""
    delay_s: float | None = None
    even: bool | None = None
    pcm: FloatArray | None = None

    @property
    def is_answer(self) -> bool:
        """Whether it counts among the answers: a stop has none."""
        return self.topic != STOP

    @property
    def owned_up(self) -> bool:
        """Whether the model said that it did not understand what it should have."""
        return not self.right and self.got == NOT_UNDERSTOOD

    @property
    def wrong(self) -> bool:
        """Whether it was another answer than the right one: worse than none."""
        return self.is_answer and not self.right and bool(self.got) and not self.owned_up and self.got != self.expected


def draw(count: int, random_: random.Random) -> list[Task]:
    """``count`` tasks: every topic as often as every other, then every question of it; then a wording that was
    kept from the training, where there is one."""
    topics: dict[str, list[Question]] = {}
    for question in phrases.questions():
        topics.setdefault(question.topic, []).append(question)
    names = [*topics, STRANGE]
    drawn: dict[str, list[Question]] = {name: [] for name in names}
    tasks: list[Task] = []
    while len(tasks) < count:
        for name in random_.sample(names, len(names)):
            if name == STRANGE:
                text = phrases.strange(random_, held_out=True)
                tasks.append(Task(STRANGE, text, NOT_UNDERSTOOD))
                continue
            if not drawn[name]:
                drawn[name] = random_.sample(topics[name], len(topics[name]))
            tasks.append(_task(drawn[name].pop(), topics, random_))
    return tasks[:count]


def _task(question: Question, topics: dict[str, list[Question]], random_: random.Random) -> Task:
    said = wording(question, random_)
    match question.reply.kind:
        case "say":
            return Task(question.topic, said, normalised(question.reply.text))
        case "count":
            return Task(COUNT, said, counted(question.reply.count_to), count_to=question.reply.count_to)
        case "go on":
            return Task(NOT_COUNTING, said, normalised(phrases.NOTHING_TO_GO_ON_WITH))
        case "stop":
            count = random_.choice([one for one in topics[COUNT] if one.reply.count_to >= _LEAST_STOPPED])
            return Task(
                STOP,
                wording(count, random_),
                count_to=count.reply.count_to,
                stop=said,
                go_on=wording(topics[GO_ON][0], random_),
                wait_s=random_.uniform(0.3, (count.reply.count_to - _LEFT_OVER) * PACE_S),
            )


def wording(question: Question, random_: random.Random) -> str:
    """One that was kept from the training, where there is one."""
    return random_.choice(question.held_out() or question.wordings)


def counted(last: int, first: int = 1) -> str:
    """The words of a count."""
    return " ".join(phrases.NUMBERS[first : last + 1])


def is_even(words: Sequence[tuple[float, str]]) -> bool:
    """Whether the numbers came at the pace of the training."""
    gaps = (after - before for (before, _), (after, _) in pairwise(words))
    return all(abs(gap - PACE_S) <= EVEN_WITHIN_S for gap in gaps)


def judge_answer(topic: str, said: str, voice: str, expected: str, heard: Heard) -> Finding:
    """An answer in words: right if they are the expected ones and there was sound."""
    why = ""
    if heard.text != expected:
        why = "other words" if heard.text else "no answer"
    elif not heard.sounds:
        why = "no sound"
    even = is_even(heard.words) if topic in {COUNT, GO_ON} and not why else None
    return Finding(topic, said, voice, expected, heard.text, not why, why, heard.delay_s, even, heard.voice)


def judge_count_begun(task: Task, voice: str, heard: Heard) -> Finding:
    """The count before a stop: right if what there is of it is the beginning of it."""
    all_of_it = counted(task.count_to)
    begun = bool(heard.words) and f"{all_of_it} ".startswith(f"{heard.text} ")
    why = "" if begun and heard.sounds else "not counting"
    return Finding(COUNT, task.said, voice, f"{all_of_it} ...", heard.text, not why, why, heard.delay_s)


def judge_stop(task: Task, voice: str, heard: Heard) -> Finding:
    """Right if it is soon quiet, for good, and nothing is written any more."""
    late_by = heard.phrase_end_s + STOP_WITHIN_S
    quiet_after_s = max(0.0, heard.sounds[-1] + 0.01 - heard.phrase_end_s) if heard.sounds else 0.0
    written_late = [word for at_s, word in heard.words if at_s > late_by]
    why = ""
    if written_late:
        why = "went on writing"
    elif quiet_after_s > STOP_WITHIN_S:
        why = f"quiet after {quiet_after_s:.2f} s"
    return Finding(STOP, task.stop, voice, "", " ".join(written_late), not why, why, quiet_after_s)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one condition. Shares are between 0 and 1, or None where nothing of the kind was asked."""

    questions: int
    right: float | None
    stops: int
    stop_heard: float | None
    even: float | None
    delay_median_s: float | None
    delay_p95_s: float | None
    stop_median_s: float | None
    by_topic: dict[str, tuple[int, int]]
    """How many right, of how many."""


@dataclass(frozen=True, slots=True)
class Understood:
    """How one voice was understood. Shares of ``questions``: ``right``; ``wrong``: another answer was given;
    ``owned_up``: the model said that it did not understand. What is left got no answer."""

    questions: int
    right: float
    wrong: float
    owned_up: float


def understood(findings: Iterable[Finding]) -> dict[str, Understood]:
    """By whose voice it was, of those who asked for an answer."""
    by_voice: dict[str, list[Finding]] = {}
    for one in findings:
        if one.is_answer:
            by_voice.setdefault(examiner_of(one.voice), []).append(one)
    return {
        name: Understood(
            len(all_),
            sum(one.right for one in all_) / len(all_),
            sum(one.wrong for one in all_) / len(all_),
            sum(one.owned_up for one in all_) / len(all_),
        )
        for name, all_ in by_voice.items()
    }


def figures(findings: Iterable[Finding]) -> Figures:
    all_ = list(findings)
    answers = [one for one in all_ if one.is_answer]
    stops = [one for one in all_ if not one.is_answer]
    delays = sorted(one.delay_s for one in answers if one.delay_s is not None)
    silences = [one.delay_s for one in stops if one.right and one.delay_s is not None]
    by_topic: dict[str, tuple[int, int]] = {}
    for one in all_:
        right, asked = by_topic.get(one.topic, (0, 0))
        by_topic[one.topic] = (right + one.right, asked + 1)
    return Figures(
        questions=len(answers),
        right=share(one.right for one in answers),
        stops=len(stops),
        stop_heard=share(one.right for one in stops),
        even=share(one.even for one in answers if one.even is not None),
        delay_median_s=statistics.median(delays) if delays else None,
        delay_p95_s=delays[int(len(delays) * 0.95)] if delays else None,
        stop_median_s=statistics.median(silences) if silences else None,
        by_topic=dict(sorted(by_topic.items())),
    )


def share(values: Iterable[bool]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None
