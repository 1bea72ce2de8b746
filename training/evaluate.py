"""``python -m training.evaluate``: examines a checkpoint and prints how well it answers.

Voices, wordings and noises are ones that no part of the training has heard. By default the model sits behind the
product's server and is called over WebRTC, four calls at once, in real time; ``--through model`` steps it directly,
which is faster. Owns the command line and the order of things.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

from rtc_server.bundled import PICO, directory_of
from rtc_server.models.kyutai.options import KyutaiOptions
from training import calls, direct, manners, voices
from training.calls import Way
from training.disturbance import Bystander
from training.examination import Task, draw
from training.person import Condition, Person
from training.report import Disturbance, Evaluation, Hearing, Result

_TASKS_EACH: Final = 8
"""At most, of one person, who then leaves for another."""
_LATE_WORDS_S: Final = 2.0
"""How long to wait for an answer's words where packets are lost: the data channel sends them again, the voice not."""
_DEFAULTS: Final = {"webrtc": (40, 4), "model": (120, 16)}
"""Questions of each voice, and conversations at a time."""
_WAYS: Final[dict[str, tuple[Condition, Way]]] = {
    "clean": ("clean", Way()),
    "lossy": ("clean", Way(loss=True)),
    "telephone": ("clean", Way(codec="audio/PCMU")),
    "room": ("room", Way()),
    "noisy": ("noisy", Way()),
    "microphone": ("microphone", Way()),
    "casual": ("clean", Way()),
}
"""What is done to the sound before it is sent, and how it is sent. ``casual``: as people say it, hesitating or
with a word too many."""


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.hear and importlib.util.find_spec("pocketsphinx") is None:
        parser.error("pocketsphinx is not installed: pip install '.[training]', or do without by --hear 0")
    if not (arguments.model / "config.json").is_file():
        parser.error(f"{arguments.model} holds no checkpoint: python -m training makes one")
    arguments.voices = _installed(arguments.voices)
    questions, rows = _DEFAULTS[arguments.through]
    arguments.questions = questions if arguments.questions is None else arguments.questions
    arguments.rows = arguments.rows or rows
    through_model = arguments.through == "model"
    evaluation = _examine_model(arguments) if through_model else asyncio.run(_examine_server(arguments))
    for line in evaluation.lines(arguments.failures):
        print(line)
    if arguments.json:
        facts = {"model": str(arguments.model), "through": arguments.through, "seed": arguments.seed}
        arguments.json.write_text(json.dumps(facts | evaluation.plain(), indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate", description=(__doc__ or "").partition("\n\n")[2]
    )
    add = parser.add_argument
    add(
        "--model",
        type=_directory,
        default=directory_of(PICO),
        metavar="DIR",
        help="the checkpoint (default: the shipped one)",
    )
    add("--through", choices=tuple(_DEFAULTS), default="webrtc", help="default: %(default)s")
    add("--conditions", nargs="*", choices=tuple(_WAYS), default=["clean", "lossy", "telephone"])
    add(
        "--voices",
        nargs="+",
        choices=(*voices.RESERVED, *voices.DEVELOPED),
        default=list(voices.RESERVED),
        help="default: those that are reserved for the examination (%(default)s), as far as they are installed",
    )
    add("--questions", type=int, help="of each voice, in each condition (default: 40 through webrtc, else 120)")
    add("--seed", type=int, default=7, help="default: %(default)s")
    add("--rows", type=int, help="conversations at a time (default: 4 through webrtc, else 16)")
    add("--threads", type=int, help="of torch (default: its own choice)")
    add("--disturbance", type=float, default=600.0, metavar="S", help="of silence, noise, music and talk; 0: none")
    add(
        "--hear", type=int, default=150, metavar="N", help="replies that a recogniser listens to (default: %(default)s)"
    )
    add("--failures", type=int, default=40, help="shown at most, of each condition (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write everything there too")
    return parser


def _installed(names: Sequence[str]) -> list[str]:
    """Those of ``names`` that can speak; of the others is told what they need."""
    able = [name for name in names if not voices.missing(name)]
    for name in names:
        if name not in able:
            print(f"without {name}: it needs {voices.missing(name)}", file=sys.stderr, flush=True)
    return able


def _directory(text: str) -> Path:
    """Absolute, for the server has a working directory of its own."""
    return Path(text).resolve()


def _examine_model(arguments: argparse.Namespace) -> Evaluation:
    from rtc_server.models.kyutai.model import load  # noqa: PLC0415 - calls need no torch here

    model = load(KyutaiOptions(str(arguments.model), arguments.rows, threads=arguments.threads))
    model.warm_up()
    results = []
    for condition in arguments.conditions:
        progress = _Progress(condition, arguments.questions * len(arguments.voices))
        sound = condition if condition in get_args(Condition) else _WAYS[condition][0]
        direct.converse(model, _people(arguments, condition, sound), progress.add)
        results.append(progress.result())
    bystanders = _bystanders(arguments)
    direct.converse(model, bystanders)
    return _evaluation(results, bystanders, arguments)


async def _examine_server(arguments: argparse.Namespace) -> Evaluation:
    results = []
    async with calls.serving(arguments.model, arguments.rows, arguments.threads) as url:
        for condition in arguments.conditions:
            sound, way = _WAYS[condition]
            people = list(_people(arguments, condition, sound, _LATE_WORDS_S if way.loss else 1.0))
            progress = _Progress(condition, arguments.questions * len(arguments.voices))
            before = await calls.counts(url)
            lost = await calls.converse(url, people, arguments.rows, way, progress.add)
            results.append(progress.result(calls.pace(before, await calls.counts(url)), lost))
        bystanders = _bystanders(arguments)
        await calls.converse(url, bystanders, arguments.rows, Way())
    return _evaluation(results, bystanders, arguments)


def _evaluation(results: list[Result], bystanders: Sequence[Bystander], arguments: argparse.Namespace) -> Evaluation:
    answers = [answer for one in bystanders for answer in one.answers()]
    disturbance = Disturbance(arguments.disturbance, answers) if bystanders else None
    return Evaluation(results, disturbance, _hearing(results, arguments.hear))


def _hearing(results: list[Result], most: int) -> Hearing | None:
    """Of the replies to clean questions, ``most`` at most; what is none of the replies, the examination has counted."""
    findings = [one for result in results if result.condition == "clean" for one in result.findings]
    said = [(one.got, one.pcm) for one in findings if one.pcm is not None and len(one.pcm)]
    if not said or not most:
        return None
    from lab.pico import recogniser  # noqa: PLC0415 - an optional package

    replies = [(text, pcm) for text, pcm in said if recogniser.own(text) is not None]
    if not replies:
        return None
    chosen = random.Random(0).sample(replies, min(most, len(replies)))
    ear = recogniser.Recogniser()
    ceiling = recogniser.ceiling(ear, [text for text, _ in chosen])
    return Hearing(len(chosen), ceiling, recogniser.differing(ear, chosen))


def _people(
    arguments: argparse.Namespace, condition: str, sound: Condition, patience_s: float = 1.0
) -> Iterator[Person]:
    """The same tasks in every condition, and in every voice."""
    tasks: Sequence[Task] = draw(arguments.questions, random.Random(arguments.seed))
    if condition == "casual":
        random_ = random.Random(arguments.seed)
        tasks = [replace(task, said=manners.casually(task.said, random_)) for task in tasks]
    each = max(1, min(_TASKS_EACH, math.ceil(len(tasks) / arguments.rows)))
    for index in range(0, len(tasks), each):
        for voice in arguments.voices:
            yield Person(tasks[index : index + each], sound, arguments.seed * 10_000 + index, patience_s, voice)


def _bystanders(arguments: argparse.Namespace) -> list[Bystander]:
    if not arguments.disturbance:
        return []
    seconds = arguments.disturbance / arguments.rows
    return [Bystander(seconds, arguments.seed * 10_000 + row) for row in range(arguments.rows)]


class _Progress:
    """Gathers what the people of one condition found, and says how far they are."""

    def __init__(self, condition: str, questions: int) -> None:
        self._condition = condition
        self._questions = questions
        self._began = time.monotonic()
        self._result = Result(condition, [], 0.0)

    def add(self, person: Person) -> None:
        self._result.findings.extend(person.findings)
        done, took_s = len(self._result.findings), time.monotonic() - self._began
        print(f"{self._condition}: {done} of about {self._questions}, {took_s:.0f} s", file=sys.stderr, flush=True)

    def result(self, pace: calls.Pace | None = None, lost: Sequence[str] = ()) -> Result:
        return Result(self._condition, self._result.findings, time.monotonic() - self._began, pace, tuple(lost))


if __name__ == "__main__":
    main()
