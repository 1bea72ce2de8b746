"""``python -m training.evaluate``: examines a checkpoint and prints how well it answers.

Voices, wordings and noises are ones that no part of the training has heard. Owns the command line and the tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from rtc_server.models.kyutai import KyutaiModel, KyutaiOptions, load
from training import direct
from training.examination import Figures, Finding, Task, draw, figures
from training.person import Condition, Person

_SHIPPED: Final = Path(__file__).parent.parent / "rtc_server" / "models" / "pico"
_TASKS_EACH: Final = 8
"""At most, of one person, who then leaves for another."""
_FAILURES_SHOWN: Final = 40


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    condition: str
    findings: list[Finding]
    took_s: float

    @property
    def figures(self) -> Figures:
        return figures(self.findings)


def main() -> None:
    arguments = _parser().parse_args()
    model = load(KyutaiOptions(str(arguments.model), arguments.rows, threads=arguments.threads))
    model.warm_up()
    results = [_examine(model, condition, arguments) for condition in arguments.conditions]
    false_answers = None
    if arguments.disturbance:
        false_answers = direct.disturb(model, arguments.disturbance, arguments.seed)
    for result in results:
        _print_failures(result, arguments.failures)
    _print_topics(results)
    _print_figures(results)
    if false_answers is not None:
        print(f"\nFalse answers in {arguments.disturbance:.0f} s of silence, noise and music: {len(false_answers)}")
        for answer in false_answers[: arguments.failures]:
            print(f"  {answer.scene} at {answer.at_s:.1f} s: {textwrap.shorten(answer.text, 80)!r}")
    if arguments.json:
        arguments.json.write_text(json.dumps(_report(results, false_answers, arguments), indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.partition("\n\n")[2])
    parser.add_argument(
        "--model", type=Path, default=_SHIPPED, help="directory of the checkpoint (default: %(default)s)"
    )
    parser.add_argument("--through", choices=("model",), default="model")
    parser.add_argument("--conditions", nargs="*", choices=get_args(Condition), default=["clean", "telephone", "lossy"])
    parser.add_argument("--questions", type=int, default=300, help="in each condition (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=16, help="conversations at a time (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch (default: its own)")
    parser.add_argument(
        "--disturbance", type=float, default=600.0, metavar="SECONDS", help="of silence, noise and music; 0: none"
    )
    parser.add_argument("--failures", type=int, default=_FAILURES_SHOWN, help="shown at most, of each condition")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    return parser


def _examine(model: KyutaiModel, condition: Condition, arguments: argparse.Namespace) -> Result:
    tasks = draw(arguments.questions, random.Random(arguments.seed))
    began = time.monotonic()
    done = 0

    def progress(person: Person) -> None:
        nonlocal done
        done += len(person.findings)
        took_s = time.monotonic() - began
        print(f"\r{condition}: {done} of about {len(tasks)}, {took_s:.0f} s", end="", file=sys.stderr, flush=True)

    each = min(_TASKS_EACH, math.ceil(len(tasks) / arguments.rows))
    found = direct.examine(model, _people(tasks, condition, arguments.seed, each), progress)
    print(file=sys.stderr)
    return Result(condition, found, time.monotonic() - began)


def _people(tasks: Sequence[Task], condition: Condition, seed: int, each: int) -> Iterator[Person]:
    for index in range(0, len(tasks), each):
        yield Person(tasks[index : index + each], condition, seed * 10_000 + index)


def _print_failures(result: Result, most: int) -> None:
    wrong = [one for one in result.findings if not one.right]
    print(f"\n{result.condition}: {len(wrong)} of {len(result.findings)} not right")
    for one in wrong[:most]:
        got = textwrap.shorten(one.got, 80)
        print(f"  {one.topic}: {one.said!r} ({one.voice}): {one.expected!r}, got {got!r}: {one.why}")


def _print_topics(results: Sequence[Result]) -> None:
    topics = sorted({topic for result in results for topic in result.figures.by_topic})
    print(f"\n{'topic':24}" + "".join(f"{result.condition:>14}" for result in results))
    for topic in topics:
        cells = (result.figures.by_topic.get(topic, (0, 0)) for result in results)
        print(f"{topic:24}" + "".join(f"{f'{right}/{asked}':>14}" for right, asked in cells))


def _print_figures(results: Sequence[Result]) -> None:
    rows: dict[str, list[str]] = {}
    for result in results:
        made = result.figures
        for name, cell in {
            "right answers": _percent(made.right, made.questions),
            "stop heard": _percent(made.stop_heard, made.stops),
            "even counts": _percent(made.even),
            "delay, median": _seconds(made.delay_median_s),
            "delay, 95 %": _seconds(made.delay_p95_s),
            "stop to silence": _seconds(made.stop_median_s),
            "took": f"{result.took_s:.0f} s",
        }.items():
            rows.setdefault(name, []).append(cell)
    print(f"\n{'':24}" + "".join(f"{result.condition:>14}" for result in results))
    for name, cells in rows.items():
        print(f"{name:24}" + "".join(f"{cell:>14}" for cell in cells))


def _percent(value: float | None, of: int | None = None) -> str:
    if value is None:
        return "-"
    return f"{value * 100:.1f} %" + (f" /{of}" if of is not None else "")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _report(results: Sequence[Result], false_answers: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    def plain(one: Finding) -> dict[str, Any]:
        return {key: value for key, value in dataclasses.asdict(one).items() if key != "pcm"}

    return {
        "model": str(arguments.model),
        "through": arguments.through,
        "seed": arguments.seed,
        "conditions": {
            result.condition: {
                "figures": dataclasses.asdict(result.figures),
                "findings": [plain(one) for one in result.findings],
            }
            for result in results
        },
        "disturbance_s": arguments.disturbance,
        "false_answers": None if false_answers is None else [dataclasses.asdict(one) for one in false_answers],
    }


if __name__ == "__main__":
    main()
