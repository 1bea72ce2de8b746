"""What an evaluation found, as tables for people and as JSON.

Owns the goals and the layout. Examines nothing.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from training.calls import Pace
from training.disturbance import FalseAnswer
from training.examination import Figures, Finding, Understood, figures, understood
from training.voices import ESPEAK

GOALS: Final = {"clean": 0.95, "lossy": 0.90, "telephone": 0.90}
"""Share of right answers, of espeak-ng's voices."""
PEOPLE_GOALS: Final = {"clean": 0.90, "lossy": 0.85, "telephone": 0.85, "noisy": 0.85, "microphone": 0.85}
"""The same of each voice that was made from a person's."""
WRONG_GOAL: Final = 0.03
"""Share of answers that are others than the right one."""
STOP_GOAL: Final = 0.95
DELAY_GOAL_S: Final = 0.6
FALSE_GOAL: Final = 2
"""In ten minutes."""
HEARD_GOAL: Final = 0.95
"""Share of replies, of those that can be understood at all."""
IN_TIME_GOAL: Final = 0.99
"""Of frames, while four talk at once."""


@dataclass(frozen=True, slots=True)
class Result:
    """Of one condition. ``pace``: of calls in real time. ``lost``: why calls ended before their time."""

    condition: str
    findings: list[Finding]
    took_s: float
    pace: Pace | None = None
    lost: tuple[str, ...] = ()

    @property
    def figures(self) -> Figures:
        return figures(self.findings)

    @property
    def by_voice(self) -> dict[str, Understood]:
        return understood(self.findings)


@dataclass(frozen=True, slots=True)
class Disturbance:
    seconds: float
    answers: list[FalseAnswer]


@dataclass(frozen=True, slots=True)
class Hearing:
    """What an independent recogniser makes of the model's voice: of ``replies``, all but the ``others`` agree with the
    model's own transcript. ``ceiling``: the share of the same texts that it understands in the
    voice that the model learnt from."""

    replies: int
    ceiling: float
    others: list[tuple[str, str]]
    """Transcripts and what was heard instead."""

    @property
    def agree(self) -> float:
        return 1 - len(self.others) / self.replies


@dataclass(frozen=True, slots=True)
class Evaluation:
    results: list[Result]
    disturbance: Disturbance | None = None
    hearing: Hearing | None = None

    def lines(self, failures: int) -> Iterator[str]:
        """All of it for people, ``failures`` at most of each kind."""
        for result in self.results:
            yield from _failures(result, failures)
        if self.disturbance is not None:
            yield from _false_answers(self.disturbance, failures)
        if self.hearing is not None:
            yield from _misheard(self.hearing, failures)
        if self.results:
            yield from _topics(self.results)
            yield from _figures(self.results)
            yield from _voices(self.results)
        yield from _goals(self)

    def plain(self) -> dict[str, Any]:
        """For JSON: without sound."""
        return {
            "conditions": {
                result.condition: {
                    "figures": dataclasses.asdict(result.figures),
                    "by_voice": {name: dataclasses.asdict(one) for name, one in result.by_voice.items()},
                    "lost": list(result.lost),
                    "pace": None if result.pace is None else dataclasses.asdict(result.pace),
                    "findings": [_plain(one) for one in result.findings],
                }
                for result in self.results
            },
            "disturbance": None if self.disturbance is None else dataclasses.asdict(self.disturbance),
            "hearing": None if self.hearing is None else dataclasses.asdict(self.hearing),
        }


def _plain(one: Finding) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(one).items() if key != "pcm"}


def _failures(result: Result, most: int) -> Iterator[str]:
    wrong = [one for one in result.findings if not one.right]
    yield f"\n{result.condition}: {len(wrong)} of {len(result.findings)} not right"
    yield from (f"  a call was lost: {reason}" for reason in result.lost)
    for one in wrong[:most]:
        got = textwrap.shorten(one.got, 80)
        yield f"  {one.topic}: {one.said!r} ({one.voice}): {one.expected!r}, got {got!r}: {one.why}"


def _false_answers(disturbance: Disturbance, most: int) -> Iterator[str]:
    yield f"\n{len(disturbance.answers)} false answers in {disturbance.seconds:.0f} s of silence, noise, music and talk"
    for answer in disturbance.answers[:most]:
        yield f"  {answer.scene} at {answer.at_s:.1f} s: {textwrap.shorten(answer.text, 80)!r}"


def _misheard(hearing: Hearing, most: int) -> Iterator[str]:
    yield f"\nheard otherwise than written: {len(hearing.others)} of {hearing.replies}"
    for written, heard in hearing.others[:most]:
        yield f"  {written!r}, heard {heard!r}"


def _topics(results: Sequence[Result]) -> Iterator[str]:
    topics = sorted({topic for result in results for topic in result.figures.by_topic})
    rows = []
    for topic in topics:
        counted = (result.figures.by_topic.get(topic, (0, 0)) for result in results)
        rows.append((topic, [f"{right}/{asked}" for right, asked in counted]))
    yield from _table("topic", results, rows)


def _figures(results: Sequence[Result]) -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    for result in results:
        made, pace = result.figures, result.pace
        cells = {
            "right answers": f"{_percent(made.right)} of {made.questions}",
            "stop heard": f"{_percent(made.stop_heard)} of {made.stops}",
            "even counts": _percent(made.even),
            "delay, median": _seconds(made.delay_median_s),
            "delay, 95 %": _seconds(made.delay_p95_s),
            "stop to silence": _seconds(made.stop_median_s),
        }
        if pace is not None:
            cells |= {
                "steps within 80 ms": _percent(pace.steps_in_time),
                "frames within 80 ms": _percent(pace.frames_in_time),
                "step, mean": f"{pace.step_mean_ms:.0f} ms",
                "dropped, filled frames": f"{pace.frames_dropped}, {pace.frames_filled}",
                "gaps in the voice": str(pace.underruns),
                "calls lost": str(len(result.lost)),
            }
        for name, cell in (cells | {"took": f"{result.took_s:.0f} s"}).items():
            rows.setdefault(name, []).append(cell)
    yield from _table("", results, list(rows.items()))


def _voices(results: Sequence[Result]) -> Iterator[str]:
    """Whose voice was understood how well."""
    yield f"\n{'voice':24}" + "".join(f"{head:>16}" for head in ("", "questions", "right", "wrong", "owned up"))
    for name in dict.fromkeys(name for result in results for name in result.by_voice):
        for result in results:
            one = result.by_voice.get(name)
            if one is not None:
                cells = (result.condition, str(one.questions), *map(_percent, (one.right, one.wrong, one.owned_up)))
                yield f"{name:24}" + "".join(f"{cell:>16}" for cell in cells)


def _table(head: str, results: Sequence[Result], rows: Sequence[tuple[str, list[str]]]) -> Iterator[str]:
    yield f"\n{head:24}" + "".join(f"{result.condition:>16}" for result in results)
    for name, cells in rows:
        yield f"{name:24}" + "".join(f"{cell:>16}" for cell in cells)


def _goals(evaluation: Evaluation) -> Iterator[str]:
    """What was asked of the model, what it does, and whether that is enough."""
    yield f"\n{'':44} {'goal':>9} {'found':>9}"
    for name, wanted, found, met in _compared(evaluation):
        yield f"{name:44} {wanted:>9} {found:>9}  {'met' if met else 'missed'}"


def _compared(evaluation: Evaluation) -> Iterator[tuple[str, str, str, bool]]:
    for result in evaluation.results:
        made = result.figures
        yield from _compared_by_voice(result)
        if result.condition == "clean" and made.stop_heard is not None:
            yield "stop heard", f">= {STOP_GOAL:.0%}", _percent(made.stop_heard), made.stop_heard >= STOP_GOAL
        if result.condition == "clean" and made.delay_median_s is not None:
            median_s = made.delay_median_s
            yield (
                "delay to first sound, median",
                f"<= {DELAY_GOAL_S} s",
                _seconds(median_s),
                0 <= median_s <= DELAY_GOAL_S,
            )
        if result.pace is not None:
            share = result.pace.frames_in_time
            name = f"frames in time, {result.condition}"
            yield name, f">= {IN_TIME_GOAL:.0%}", _percent(share), share >= IN_TIME_GOAL
    if evaluation.disturbance is not None:
        per_ten = len(evaluation.disturbance.answers) / evaluation.disturbance.seconds * 600
        yield "false answers in ten minutes", f"<= {FALSE_GOAL}", f"{per_ten:.1f}", per_ten <= FALSE_GOAL
    if evaluation.hearing is not None:
        agree, ceiling = evaluation.hearing.agree, evaluation.hearing.ceiling
        goal = ceiling * HEARD_GOAL
        yield f"heard as written (own voice: {_percent(ceiling)})", f">= {goal:.0%}", _percent(agree), agree >= goal


def _compared_by_voice(result: Result) -> Iterator[tuple[str, str, str, bool]]:
    for name, one in result.by_voice.items():
        goals, whose = (GOALS, "") if name == ESPEAK else (PEOPLE_GOALS, f", {name}")
        goal = goals.get(result.condition)
        if goal is not None:
            yield f"right answers, {result.condition}{whose}", f">= {goal:.0%}", _percent(one.right), one.right >= goal
            yield (
                f"wrong answers, {result.condition}{whose}",
                f"<= {WRONG_GOAL:.0%}",
                _percent(one.wrong),
                one.wrong <= WRONG_GOAL,
            )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
