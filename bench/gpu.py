"""``python -m bench gpu``: all that is to be known of a GPU that is there for a quarter of an hour, in one go.

A list of commands, what matters most first: the tests of what only a GPU can do wrong, the attention kernel with 16 and
32 lanes, then the engine at numbers of sessions, fills and types of cache. Each is a process of its own, prints when it
has something, and costs no other anything if it fails or takes too long; what there is no time for is named at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.floor import counts
from bench.table import publish

HELP = "tests and measures a GPU within some minutes: one command for a machine that is only lent"

_ROOT: Final = Path(__file__).parents[1]
_PARTS: Final = ("tests", "kernel", "engine")
_TESTS_S: Final = 200.0
_KERNEL_S: Final = 90.0
_ENGINE_S: Final = 150.0
"""Loading weights that are drawn on the device, a compiler's first time, graphs of each size, and what is measured."""
_LEAST_S: Final = 20.0
"""With less time left, nothing is begun."""
_MINUTE, _TWO_MINUTES, _FULL = 750, 1_500, 3_000
"""Frames of a conversation of 60 s, of 120 s, and of one as old as the model remembers."""


@dataclass(frozen=True, slots=True)
class Part:
    """``arguments``: of the interpreter. ``limit_s``: after so many seconds it is killed."""

    name: str
    arguments: tuple[str, ...]
    limit_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    said: str
    seconds: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=12.5, help="for all of it; what is under way then is killed")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--arch", default="moshi-7b", help="see python -m bench engine")
    parser.add_argument("--parts", default=",".join(_PARTS), help="which of them")
    parser.add_argument(
        "--slots", type=counts, default="64,128,1,50,32,96,80,16,8", help="sessions at a time, what matters most first"
    )
    parser.add_argument("--seconds", type=float, default=8, help="each engine is measured for so long")


def run(arguments: argparse.Namespace) -> None:
    outcomes = run_all(parts(arguments), arguments.minutes * 60, time.monotonic)
    publish(
        f"In {arguments.minutes:g} minutes on {arguments.device}",
        ["part", "what became of it", "seconds"],
        [[each.name, each.said, f"{each.seconds:.0f}"] for each in outcomes],
    )
    if any(each.said != "done" for each in outcomes):
        sys.exit(1)


def parts(arguments: argparse.Namespace) -> list[Part]:
    """What matters most first."""
    wanted = arguments.parts.split(",")
    found = []
    if "tests" in wanted:
        of_pytest = (
            *("-m", "pytest", "-v", "-p", "no:cacheprovider", "--confcutdir=tests/models"),
            *("-o", "addopts="),  # plugins may be missing: what is set of them is unknown then, and no error
            "tests/models/test_cuda.py",
        )
        found.append(Part("tests", of_pytest, _TESTS_S))
    if "kernel" in wanted and arguments.device != "cpu":
        found.append(Part("kernel", ("-m", "bench", "kernel", "--device", arguments.device), _KERNEL_S))
    if "engine" in wanted:
        found += [_engine(arguments, *each) for each in _cases(arguments.slots)]
    return found


def _cases(slots: Sequence[int]) -> list[tuple[int, int, str, bool]]:
    """Sessions, fill, type of cache, and whether beside the moshi package alone and the bandwidth: first each number
    when conversations are young, then the two largest in all ways, then the others."""
    most = list(slots[:2])
    first = [(each, _MINUTE, "auto", each == min(slots)) for each in dict.fromkeys([*most, min(slots)])]
    largest = [
        (each, fill, kind, False) for fill in (_FULL, _TWO_MINUTES) for kind in ("auto", "float8") for each in most
    ]
    others = [
        (each, fill, kind, False)
        for fill, kind in ((_FULL, "auto"), (_FULL, "float8"), (_MINUTE, "auto"), (_TWO_MINUTES, "auto"))
        for each in slots
    ]
    found = {case[:3]: case for case in [*others, *largest, *first]}  # the last of those that are the same
    return [found[case] for case in dict.fromkeys(each[:3] for each in [*first, *largest, *others])]


def _engine(arguments: argparse.Namespace, slots: int, fill: int, kind: str, compare: bool) -> Part:
    cache = () if kind == "auto" else ("--kv-dtype", kind)
    command = (
        *("-m", "bench", "engine", "--arch", arguments.arch, "--device", arguments.device, "--pages", "auto"),
        *("--slots", str(slots), "--fill", str(fill), *cache, "--rounds", "1", "--seconds", f"{arguments.seconds:g}"),
        *("--life", "5", "--steps", "50", "--compare" if compare else "--no-compare"),
    )
    return Part(f"{slots} sessions, {fill} frames, {kind}", command, _ENGINE_S)


def run_all(parts: Sequence[Part], budget_s: float, clock: Callable[[], float]) -> list[Outcome]:
    """One after the other, for as long as there is time."""
    ends_at = clock() + budget_s
    outcomes = []
    for part in parts:
        began = clock()
        left_s = ends_at - began
        if left_s < _LEAST_S:
            outcomes.append(Outcome(part.name, "no time left"))
            continue
        print(f"\n== {part.name}: python {shlex.join(part.arguments)}", flush=True)
        outcome = Outcome(part.name, _run(part, min(part.limit_s, left_s)), clock() - began)
        print(f"== {part.name}: {outcome.said}, {outcome.seconds:.0f} s", flush=True)
        outcomes.append(outcome)
    return outcomes


def _run(part: Part, limit_s: float) -> str:
    """What became of it. Its output is ours; all that it has started ends with it."""
    process = subprocess.Popen([sys.executable, *part.arguments], cwd=_ROOT, start_new_session=True)
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"killed after {limit_s:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return "done" if status == 0 else f"failed with {status}"
