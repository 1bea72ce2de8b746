"""``python -m bench engine``: what the product's engine does with so many sessions, and what it takes.

The model runs in the product's own engine process, behind its own step loop; sessions come and go as callers do. In
the same run, for comparison: the moshi package's own calls without a server around them, and the least time that the
memory's bandwidth allows. ``moshi-7b`` is the real architecture with random weights: as much work as the real model,
and nothing to download.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import sys
import tempfile
import time
import typing
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.apart import apart
from bench.callers import Figures, call_in_all_slots
from bench.floor import counts, size
from bench.operations import Operation, grouped, operations
from bench.plain import Device, Lockstep, device_of, lockstep
from bench.quiet import errors_only
from bench.table import publish, spread
from bench.weights import Memory, WeighedOptions
from rtc_server.audio import FRAME_MS
from rtc_server.config import AUTO
from rtc_server.engine.client import EngineClient
from rtc_server.engine.link import EngineLink, OnExit, OnMessage
from rtc_server.engine.messages import FromEngine, StepDone, ToEngine
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.errors import ServerError
from rtc_server.metrics import Metrics
from rtc_server.models.kyutai.options import KvDtype, KyutaiOptions

HELP = "step and frame times of the engine, beside the plain model and the memory's bandwidth"

_FACTORY: Final = "bench.architectures:engine"
_TINY: Final = {"tiny": "moshi", "tiny-stt": "stt"}
_TOP: Final = 25
_HEAD: Final = (
    "",
    "sessions",
    "step p50, ms",
    "p95",
    "p99",
    "max",
    "rows a step",
    "frame p50, ms",
    "frame p99",
    f"later than {FRAME_MS} ms",
    "lost",
    "weights",
    "a session",
    "in all",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--arch", default="tiny", help="moshi-7b (random weights), tiny, tiny-stt, pico, a directory, a hub repository"
    )
    parser.add_argument("--slots", type=counts, default="1,4,16", help="sessions at a time, one run for each")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", help="of the language model")
    parser.add_argument(
        "--kv-dtype",
        choices=typing.get_args(KvDtype),
        default="auto",
        help="of what attention remembers in the engine (auto: the language model's)",
    )
    parser.add_argument("--context", type=int, help="frames that attention looks back over (default: the model's)")
    parser.add_argument(
        "--pages",
        type=pages,
        default=0,
        help="of attention's memory, for all sessions (0: whole rings; auto: what the device has memory for)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the model's process")
    parser.add_argument("--seconds", type=float, default=10, help="measured for so long")
    parser.add_argument("--warm", type=float, default=2, help="seconds before that")
    parser.add_argument("--rounds", type=int, default=3, help="times each")
    parser.add_argument("--life", type=float, default=5, help="seconds a session lives in the mean; 0: to the end")
    parser.add_argument(
        "--fill",
        type=int,
        default=0,
        metavar="FRAMES",
        help="steps as long as if the longest conversation had so many frames behind it (750 are a minute)",
    )
    parser.add_argument("--steps", type=int, default=100, help="of the plain model, and of a profile")
    parser.add_argument(
        "--compare", action=argparse.BooleanOptionalAction, default=True, help="with the plain model and the bandwidth"
    )
    parser.add_argument("--profile", type=int, metavar="SLOTS", help="only: where the time of a step of so many goes")


def pages(text: str) -> int | None:
    """None for ``auto``."""
    return None if text == AUTO else int(text)


@dataclass(slots=True)
class Runs:
    """Of one number of sessions, an entry a round. ``failure``: why there are no more, in a few words."""

    figures: list[Figures] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    plain: list[Lockstep] = field(default_factory=list)
    failure: str = ""
    plain_failure: str = ""


@errors_only("rtc_server.engine")
def run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            options = kyutai_options(arguments, Path(directory))
            if arguments.profile:
                _publish_profile(arguments, options)
                return
            runs, device = measure(arguments, options, Path(directory) / "memory.json")
        except RuntimeError as error:
            raise SystemExit(f"error: {arguments.arch} on {arguments.device}: {error}") from None
    _publish(arguments, runs, device)


def kyutai_options(arguments: argparse.Namespace, directory: Path, slots: int = 1) -> KyutaiOptions:
    """The product's options. What is written for a model goes into ``directory``."""
    model = arguments.arch
    if model in _TINY:
        model = apart(write_tiny, directory / model, _TINY[model])
    return KyutaiOptions(
        model,
        slots=slots,
        device=arguments.device,
        dtype=arguments.dtype,
        kv_dtype=arguments.kv_dtype,
        context=arguments.context,
        pages=arguments.pages,
        threads=arguments.threads,
        seed=1,
    )


def write_tiny(directory: Path, kind: Any) -> str:
    from rtc_server.models.tiny import write_tiny_checkpoint  # noqa: PLC0415 - imports torch

    return str(write_tiny_checkpoint(directory, kind))


def measure(
    arguments: argparse.Namespace, options: KyutaiOptions, report: Path
) -> tuple[dict[int, Runs], Device | None]:
    """Each number of sessions in each round, in turn: what else the machine does meets all of them alike. One that
    fails, for want of memory perhaps, is not tried again, and hinders no other."""
    runs: dict[int, Runs] = defaultdict(Runs)
    device = apart(device_of, arguments.device, arguments.threads) if arguments.compare else None
    for number in range(1, arguments.rounds + 1):
        print(f"round {number} of {arguments.rounds}", file=sys.stderr)
        if arguments.compare and 1 not in arguments.slots:
            _measure_plain(runs[1], 1, arguments, options)
        for slots in arguments.slots:
            print(f"  {slots} sessions", file=sys.stderr)
            _measure_engine(runs[slots], slots, arguments, options, report)
            if arguments.compare:
                _measure_plain(runs[slots], slots, arguments, options)
    return dict(sorted(runs.items())), device


def _measure_engine(
    runs: Runs, slots: int, arguments: argparse.Namespace, options: KyutaiOptions, report: Path
) -> None:
    if runs.failure:
        return
    try:
        weighed = WeighedOptions(dataclasses.replace(options, slots=slots), str(report), arguments.fill)
        figures = asyncio.run(_call(arguments, weighed))
    except ServerError as error:
        runs.failure = str(error)
    else:
        runs.figures.append(figures)
        runs.memory.append(Memory.read(report))


def _measure_plain(runs: Runs, batch: int, arguments: argparse.Namespace, options: KyutaiOptions) -> None:
    if runs.plain_failure:
        return
    wanted = (options.device, options.dtype, options.context, options.threads)
    try:
        runs.plain.append(apart(lockstep, options.model, batch, arguments.steps, *wanted))
    except RuntimeError as error:
        runs.plain_failure = str(error)


async def _call(arguments: argparse.Namespace, options: WeighedOptions) -> Figures:
    """One engine, from its start to its end. Raises ServerError."""
    figures = Figures(begins_at=float("inf"))
    spec = ChildSpec(_FACTORY, options, log_level=logging.CRITICAL)
    client = EngineClient("bench", lambda: TappedLink(ProcessLink(spec), figures.on_step), Metrics())
    client.start()
    try:
        await client.wait_settled()
        await call_in_all_slots(client, figures, options.slots, arguments.warm, arguments.seconds, arguments.life)
    except ExceptionGroup as errors:  # of the sessions, which all end for the same reason
        raise errors.exceptions[0] from None
    finally:
        await client.close()
    return figures


class TappedLink:
    """A link that tells of each step on its way to the client, and when it came."""

    def __init__(self, link: EngineLink, on_step: Callable[[StepDone, float], None]) -> None:
        self._link = link
        self._on_step = on_step

    @property
    def pid(self) -> int | None:
        return self._link.pid

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        def tapped(message: FromEngine) -> None:
            if isinstance(message, StepDone):
                self._on_step(message, time.monotonic())
            on_message(message)

        await self._link.start(tapped, on_exit)

    def send(self, message: ToEngine) -> bool:
        return self._link.send(message)

    async def close(self) -> None:
        await self._link.close()


def _publish(arguments: argparse.Namespace, runs: dict[int, Runs], device: Device | None) -> None:
    rows = [row for sessions, each in runs.items() for row in _rows(sessions, each, device)]
    failures = [
        f"Of {sessions}: {what}"
        for sessions, each in runs.items()
        for what in (each.failure, each.plain_failure)
        if what
    ]
    cuda = arguments.device.startswith("cuda")
    held = "what torch has reserved on the device" if cuda else "the resident memory of the model's process"
    notes = [
        f"{arguments.rounds} round(s) of {arguments.seconds:g} s: median (least–most) of the rounds' figures.",
        f"{FRAME_MS} ms of audio for each session every {FRAME_MS} ms, each at a random phase. {_life(arguments)}"
        f"{_fill(arguments)}",
        "Step: the batched call of the model, by the engine's clock. Frame: from the media plane's push to the "
        f"output's arrival there, waiting for the step before included. Later than {FRAME_MS} ms: or never.",
        f"In all: {held}, at its peak.",
        f"{sum(each.sessions for some in runs.values() for each in some.figures)} sessions came and went meanwhile.",
    ]
    if device is not None:
        notes += [
            f"moshi.server's loop, and the same calls on more rows in lockstep, without masks and resets: "
            f"{arguments.steps} steps, one right after the other, in a process of their own.",
            "Bandwidth alone: weights and whole caches, read once at the speed of a copy on this device, "
            f"{device.bytes_per_s / 1e9:,.0f} GB/s ({device.name}; {device.software}).",
        ]
    kind = f"{arguments.arch} on {device.name if device else arguments.device}"
    publish(f"Engine: {kind}", _HEAD, rows, [*notes, *failures])


def _life(arguments: argparse.Namespace) -> str:
    if not arguments.life:
        return "Sessions stay to the end."
    return f"A session lives {arguments.life:g} s in the mean; then another takes its slot."


def _fill(arguments: argparse.Namespace) -> str:
    if not arguments.fill:
        return ""
    return f" Attention reads at least {arguments.fill} frames of each, as of a conversation that is so old."


def _rows(sessions: int, runs: Runs, device: Device | None) -> list[list[str]]:
    """What is in the table for so many sessions."""
    rows = [["this server's engine", str(sessions), *_engine_cells(runs)]] if runs.figures or runs.failure else []
    if runs.plain or runs.plain_failure:
        name = "moshi.server's loop" if sessions == 1 else "a batch in lockstep"
        held = spread_size([each.total_bytes for each in runs.plain])
        steps = _percentiles([each.steps for each in runs.plain], (50, 95, 99, 100))
        rows.append([name, str(sessions), *steps, *["–"] * 7, held])
    if runs.memory and device is not None:
        floor_ms = runs.memory[0].sizes.floor_s(sessions, device.bytes_per_s) * 1000
        rows.append(["bandwidth alone", str(sessions), f"{floor_ms:.1f}", *["–"] * 11])
    return rows


def _engine_cells(runs: Runs) -> list[str]:
    late = [each.late for each in runs.figures]
    return [
        *_percentiles([each.steps for each in runs.figures], (50, 95, 99, 100)),
        spread([float(np.mean(each.rows)) for each in runs.figures if each.rows], digits=1),
        *_percentiles([each.frames for each in runs.figures], (50, 99)),
        spread([share * 100 for share in late if share is not None], "%", digits=1),
        spread([float(each.lost) for each in runs.figures]),
        spread_size([each.sizes.weights for each in runs.memory]),
        spread_size([each.sizes.session for each in runs.memory]),
        spread_size([each.total_bytes for each in runs.memory]),
    ]


def _percentiles(runs: list[list[float]], percentiles: tuple[int, ...]) -> list[str]:
    """In milliseconds."""
    return [
        spread([float(np.percentile(seconds, percentile)) * 1000 for seconds in runs if seconds], digits=1)
        for percentile in percentiles
    ]


def spread_size(values: list[int]) -> str:
    """The most of some sizes: rounds differ by nothing that matters."""
    return size(max(values)) if values else "–"


def _publish_profile(arguments: argparse.Namespace, options: KyutaiOptions) -> None:
    found = apart(operations, dataclasses.replace(options, slots=arguments.profile), arguments.steps, arguments.fill)
    kind = f"{arguments.arch} on {arguments.device}, {arguments.profile} slots"
    where = "on the device" if arguments.device.startswith("cuda") else "on the CPU, under the profiler"
    for title, operations_, note in (
        ("kinds of work", grouped(found), f"{arguments.steps} steps; own time {where}, in the mean of a step."),
        ("operations", found[:_TOP], f"The {_TOP} longest of {len(found)}."),
    ):
        head = [title, "calls a step", "ms a step", "share"]
        publish(f"Where a step goes: {kind}", head, _profile_rows(operations_, found, arguments.steps), [note])


def _profile_rows(shown: list[Operation], every: list[Operation], steps: int) -> list[list[str]]:
    total = sum(each.seconds for each in every) or 1.0
    return [
        [
            each.name[:100].replace("|", "/"),
            f"{each.calls / steps:.1f}",
            f"{each.seconds / steps * 1000:.3f}",
            f"{each.seconds / total:.1%}",
        ]
        for each in shown
    ]
