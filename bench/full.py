"""``python -m bench full``: one engine, by numbers of sessions and their ages, in turn.

A model is loaded and warmed once, for of a GPU that is only lent there may be minutes: then so many sessions come and
go, of so many frames each, and the next number follows. Each line is printed when it is measured. What matters most
comes first: all ages of the first two numbers of sessions, of the least the youngest, then all others.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import tempfile
import time
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.apart import apart
from bench.callers import Figures, call_in_all_slots
from bench.engine import TappedLink, kyutai_options, pages
from bench.floor import counts, size
from bench.plain import Device, device_of
from bench.quiet import errors_only
from bench.table import publish
from bench.weights import Age, Memory, WeighedOptions
from rtc_server.audio import FRAME_MS
from rtc_server.engine.client import EngineClient
from rtc_server.engine.messages import StepDone
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.errors import ServerError, ServerFull
from rtc_server.metrics import Metrics
from rtc_server.models.kyutai.options import KvDtype, KyutaiOptions

HELP = "an engine that is loaded once, by numbers of sessions and their ages"

_FACTORY: Final = "bench.architectures:engine"
_RESTART_S: Final = 120
_FRAMES_A_SECOND: Final = 1000 / FRAME_MS
_HEAD: Final = (
    "sessions",
    "frames behind each",
    "step p50, ms",
    "p95",
    "p99",
    "max",
    "by bandwidth alone",
    "rows a step",
    "frame p50, ms",
    "frame p99",
    f"later than {FRAME_MS} ms",
    "lost",
)


@dataclass(frozen=True, slots=True)
class Case:
    sessions: int
    frames: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default="tiny", help="see python -m bench engine")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", help="of the language model")
    parser.add_argument("--kv-dtype", choices=typing.get_args(KvDtype), default="auto", help="of attention's memory")
    parser.add_argument("--context", type=int, help="frames that attention looks back over (default: the model's)")
    parser.add_argument("--pages", type=pages, default="auto", help="of attention's memory, see python -m bench engine")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the model's process")
    parser.add_argument("--slots", type=int, help="of the engine (default: the most sessions)")
    parser.add_argument("--sessions", type=counts, default="4,1", help="at a time, what matters most first")
    parser.add_argument("--fills", type=counts, default="8,16", help="frames behind each session, likewise")
    parser.add_argument("--seconds", type=float, default=6, help="each is measured for so long")
    parser.add_argument("--warm", type=float, default=1.5, help="seconds before that")
    parser.add_argument("--life", type=float, default=5, help="seconds a session lives in the mean; 0: to the end")
    parser.add_argument("--within", type=float, default=float("inf"), help="seconds, after which nothing new is begun")


def cases(sessions: Sequence[int], fills: Sequence[int]) -> list[Case]:
    """What matters most first, and none twice."""
    most, least = sessions[:2], min(sessions)
    first = [*(Case(each, fills[0]) for each in most), Case(least, fills[0])]
    largest = [Case(each, fill) for fill in fills for each in most]
    others = [Case(each, fill) for fill in fills for each in sessions]
    return list(dict.fromkeys([*first, *largest, *others]))


@errors_only("rtc_server.engine")
def run(arguments: argparse.Namespace) -> None:
    ends_at = time.monotonic() + arguments.within
    slots = arguments.slots or max(arguments.sessions)
    with tempfile.TemporaryDirectory() as directory:
        report, age = (Path(directory) / name for name in ("memory.json", "age"))
        try:
            device = apart(device_of, arguments.device, arguments.threads)
            options = kyutai_options(arguments, Path(directory), slots)
            rows, notes = asyncio.run(_measure(arguments, options, device, (report, age), ends_at))
        except (RuntimeError, ServerError) as error:
            raise SystemExit(f"error: {arguments.arch} on {arguments.device}: {error}") from None
        memory = Memory.read(report)
    publish(
        f"One engine of {slots} slots: {arguments.arch} on {device.name}, memory of attention {arguments.kv_dtype}",
        _HEAD,
        rows,
        [
            f"{arguments.seconds:g} s each. {FRAME_MS} ms of audio for each session every {FRAME_MS} ms, each at a "
            f"random phase; a session lives {arguments.life:g} s in the mean, then another takes its place.",
            f"Weights {size(memory.sizes.weights)}, a frame of attention's memory {size(memory.frame_bytes)}, held in "
            f"all {size(memory.total_bytes)}.",
            f"By bandwidth alone: weights, and what attention reads, at {device.bytes_per_s / 1e9:,.0f} GB/s "
            f"({device.name}; {device.software}).",
            *notes,
        ],
    )
    if not rows:
        raise SystemExit(1)


async def _measure(
    arguments: argparse.Namespace, options: KyutaiOptions, device: Device, files: tuple[Path, Path], ends_at: float
) -> tuple[list[list[str]], list[str]]:
    """The lines of the table, and why others are missing. Raises ServerError if there is no engine."""
    report, age_file = files
    age, tap = Age(age_file, write=True), _Tap()
    weighed = WeighedOptions(options, str(report), age=str(age_file))
    spec = ChildSpec(_FACTORY, weighed, log_level=logging.INFO)  # how many pages, and by which kernel
    client = EngineClient("bench", lambda: TappedLink(ProcessLink(spec), tap.on_step), Metrics())
    rows: list[list[str]] = []
    notes: list[str] = []
    began = time.monotonic()
    client.start()
    try:
        await client.wait_settled()
        memory = Memory.read(report)
        print(f"warm after {time.monotonic() - began:.0f} s", flush=True)
        print(f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}", flush=True)
        for case in cases(arguments.sessions, arguments.fills):
            if time.monotonic() + arguments.warm + arguments.seconds > ends_at:
                notes.append(f"No time for {case.sessions} sessions of {case.frames} frames.")
                continue
            age.frames = case.frames
            tap.figures = Figures(begins_at=float("inf"))
            try:
                times = arguments.warm, arguments.seconds, arguments.life
                await call_in_all_slots(client, tap.figures, case.sessions, *times)
            except ExceptionGroup as errors:  # of the sessions, which all end for the same reason
                notes.append(f"Of {case.sessions} sessions of {case.frames} frames: {errors.exceptions[0]}")
                if not isinstance(errors.exceptions[0], ServerFull) and not await _is_back(client):
                    break
                continue
            floor_s = memory.floor_s(case.sessions, case.frames, device.bytes_per_s)
            rows.append(_row(case, tap.figures, floor_s))
            print(f"| {' | '.join(rows[-1])} |", flush=True)
    finally:
        await client.close()
    return rows, notes


async def _is_back(client: EngineClient) -> bool:
    """Wait for the engine that is started in place of one that has ended."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_RESTART_S):
            await client.wait_ready()
    return client.ready


class _Tap:
    """Whose figures steps are counted for now."""

    def __init__(self) -> None:
        self.figures = Figures(begins_at=float("inf"))

    def on_step(self, done: StepDone, now: float) -> None:
        self.figures.on_step(done, now)


def _row(case: Case, figures: Figures, floor_s: float) -> list[str]:
    late = figures.late
    return [
        str(case.sessions),
        f"{case.frames} ({case.frames / _FRAMES_A_SECOND:.0f} s)",
        *_ms(figures.steps, (50, 95, 99, 100)),
        f"{floor_s * 1000:.1f}",
        f"{np.mean(figures.rows):.1f}" if figures.rows else "–",
        *_ms(figures.frames, (50, 99)),
        "–" if late is None else f"{late:.1%}",
        str(figures.lost),
    ]


def _ms(seconds: list[float], percentiles: tuple[int, ...]) -> list[str]:
    return [f"{np.percentile(seconds, each) * 1000:.1f}" if seconds else "–" for each in percentiles]
