"""``python -m bench gpu``: all that is to be known of a GPU that is there for a quarter of an hour, in one go.

A list of commands, what matters most first: the tests of what only a GPU can do wrong, the attention kernel with 16 and
32 lanes, then the engine at numbers of sessions, fills and types of cache. Each is a process of its own, prints when it
has something, and costs no other anything if it fails or takes too long; what there is no time for is named at the end,
with the command that goes on there.
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

from bench.table import publish

HELP = "tests and measures a GPU within some minutes: one command for a machine that is only lent"

_ROOT: Final = Path(__file__).parents[1]
DONE: Final = "done"
NO_TIME: Final = "no time left"
_LEAST_S: Final = 20.0
"""With less time left, nothing is begun."""
_TIDY_S: Final = 15.0
"""For which a part that ends by itself may go on, to close what it has open and print its table."""
_TESTS: Final = ("-m", "pytest", "-v", "-p", "no:cacheprovider", "--confcutdir=tests/models", "-o", "addopts=")
"""Plugins may be missing: what is set of them is unknown then, and no error."""
_ALL_FILLS: Final = "750,3000,1500"
"""Frames of a conversation of 60 s, of one as old as the model remembers, and of one of 120 s."""


@dataclass(frozen=True, slots=True)
class Part:
    """``arguments``: of the interpreter. ``limit_s``: after so many seconds it is killed. ``ends_itself``: it is told
    before, by ``--within``."""

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    ends_itself: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    said: str
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """What there was no time for has not failed."""
        return self.said != DONE and not self.said.startswith(NO_TIME)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=9.5, help="for all of it; what is under way then is killed")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--arch", default="moshi-7b", help="see python -m bench engine")
    parser.add_argument("--skip", type=int, default=0, help="of the parts, the first so many: they have been done")
    parser.add_argument("--sessions", default="64,128,1,50,32,96,80,16,8", help="at a time, what matters most first")
    parser.add_argument("--fills", default=_ALL_FILLS, help="frames behind each, likewise")
    parser.add_argument("--seconds", type=float, default=6, help="each number of sessions is measured for so long")


def run(arguments: argparse.Namespace) -> None:
    every = parts(arguments)
    outcomes = run_all(every[arguments.skip :], arguments.minutes * 60, time.monotonic)
    publish(
        f"In {arguments.minutes:g} minutes on {arguments.device}",
        ["part", "what became of it", "seconds"],
        [[each.name, each.said, f"{each.seconds:.0f}"] for each in outcomes],
        _what_is_left(outcomes, arguments.skip),
    )
    if any(each.failed for each in outcomes):
        sys.exit(1)


def _what_is_left(outcomes: Sequence[Outcome], skipped: int) -> list[str]:
    first = next((number for number, each in enumerate(outcomes) if each.said.startswith(NO_TIME)), None)
    return [] if first is None else [f"To go on: the same command with `--skip {skipped + first}`."]


def parts(arguments: argparse.Namespace) -> list[Part]:
    """What matters most first. Seconds: what each may take, an interpreter and a compiler's first time included."""
    on = ("--device", arguments.device)
    model = ("--arch", arguments.arch, *on)
    full = (
        *("-m", "bench", "full", *model, "--sessions", arguments.sessions, "--fills", arguments.fills),
        *("--seconds", f"{arguments.seconds:g}"),
    )
    few = ("--slots", "1", "--rounds", "1", "--seconds", f"{arguments.seconds:g}", "--steps", "50", "--pages", "auto")
    most = arguments.sessions.partition(",")[0]
    on_cuda = [
        Part("tests", (*_TESTS, "tests/models/test_cuda.py"), 170.0),
        Part("kernel", ("-m", "bench", "kernel", *on), 90.0),
    ]
    rows = (*_TESTS, "-k", "cuda", "tests/models/test_kyutai.py", "tests/models/test_kyutai_rows.py")
    return [
        *(on_cuda if arguments.device != "cpu" else []),
        Part("sessions", full, 360.0, ends_itself=True),
        Part("sessions, float8", (*full, "--kv-dtype", "float8"), 360.0, ends_itself=True),
        Part("the moshi package, and bandwidth", ("-m", "bench", "engine", *model, *few), 120.0),
        Part("where a step goes", ("-m", "bench", "engine", *model, *few, "--profile", most, "--fill", "750"), 120.0),
        *([Part("tests of rows", rows, 240.0)] if arguments.device != "cpu" else []),
    ]


def run_all(parts: Sequence[Part], budget_s: float, clock: Callable[[], float]) -> list[Outcome]:
    """One after the other, for as long as there is time."""
    ends_at = clock() + budget_s
    outcomes = []
    for part in parts:
        began = clock()
        left_s = ends_at - began
        if left_s < _LEAST_S:
            outcomes.append(Outcome(part.name, NO_TIME))
            continue
        print(f"\n== {part.name}: python {shlex.join(part.arguments)}", flush=True)
        outcome = Outcome(part.name, _run(part, left_s), clock() - began)
        print(f"== {part.name}: {outcome.said}, {outcome.seconds:.0f} s", flush=True)
        outcomes.append(outcome)
    return outcomes


def _run(part: Part, left_s: float) -> str:
    """What became of it. Its output is ours; all that it has started ends with it."""
    limit_s = min(part.limit_s, left_s)
    arguments = part.arguments
    if part.ends_itself:
        arguments = (*arguments, "--within", f"{max(0.0, limit_s - _TIDY_S):.0f}")
    found_in = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))  # this is a checkout
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": found_in}
    process = subprocess.Popen([sys.executable, *arguments], cwd=_ROOT, start_new_session=True, env=environment)
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"{NO_TIME} after {limit_s:.0f} s" if limit_s < part.limit_s else f"killed after {limit_s:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return DONE if status == 0 else f"failed with {status}"
