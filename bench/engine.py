"""``python -m bench engine``: step times of a tiny checkpoint in the product's own engine process.

Frames come as calls send them, every 80 ms at a phase of their own, so that the batching is the one that the
step loop makes of them. The tiny model says what the loop and the moshi package's calls cost, not what a real
model costs.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.table import publish, spread
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES
from rtc_server.engine.client import EngineClient, StreamOutput
from rtc_server.engine.link import EngineLink, OnExit, OnMessage
from rtc_server.engine.messages import FromEngine, StepDone, ToEngine
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.errors import ServerError
from rtc_server.metrics import Metrics

HELP = "step and frame times of the engine with a tiny model"

_FRAME_S: Final = FRAME_MS / 1000
_FACTORY: Final = "rtc_server.models.kyutai:load_with"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", default="1,4,16", help="slots in use, one run for each")
    parser.add_argument("--seconds", type=float, default=10, help="measured for so long")
    parser.add_argument("--warm", type=float, default=2, help="seconds before that")
    parser.add_argument("--rounds", type=int, default=3, help="times each")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the engine")
    parser.add_argument("--kind", choices=("moshi", "stt"), default="moshi", help="which tiny checkpoint")


@dataclass(slots=True)
class Figures:
    """Seconds. ``steps``: in the model, by the engine's clock. ``frames``: from push to output, by ours."""

    steps: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)
    pushed: int = 0
    dropped: int = 0


class TappedLink:
    """A link that tells of each step on its way to the client."""

    def __init__(self, link: EngineLink, on_step: Callable[[StepDone], None]) -> None:
        self._link = link
        self._on_step = on_step

    @property
    def pid(self) -> int:
        return self._link.pid

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        def tapped(message: FromEngine) -> None:
            if isinstance(message, StepDone):
                self._on_step(message)
            on_message(message)

        await self._link.start(tapped, on_exit)

    def send(self, message: ToEngine) -> bool:
        return self._link.send(message)

    async def close(self) -> None:
        await self._link.close()


class _Ear:
    def __init__(self, frames: list[float]) -> None:
        self._frames = frames

    def on_output(self, output: StreamOutput) -> None:
        if output.engine_s is not None:
            self._frames.append(output.engine_s)

    def on_engine_error(self, error: ServerError) -> None:
        raise error


def run(arguments: argparse.Namespace) -> None:
    from rtc_server.models.tiny import write_tiny_checkpoint  # noqa: PLC0415 - imports torch, for the table's sake

    counts = [int(text) for text in arguments.rows.split(",")]
    runs: dict[int, list[Figures]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = write_tiny_checkpoint(Path(directory) / f"tiny-{arguments.kind}", arguments.kind)
        for _ in range(arguments.rounds):
            for count in counts:
                runs[count].append(asyncio.run(_measure(str(checkpoint), count, arguments)))
    publish(
        f"Engine: tiny {arguments.kind}, {arguments.threads} thread(s)",
        ["rows", *("step p50, ms", "p95", "p99", "max", "rows a step", "frame p50, ms", "frame p99", "lost frames")],
        [[str(count), *_cells(runs[count])] for count in counts],
        [
            f"{arguments.rounds} rounds of {arguments.seconds:g} s: median (least–most) of the rounds' figures. A "
            f"frame of {FRAME_MS} ms for each row every {FRAME_MS} ms, each row at a random phase.",
            "Step: the batched call of the model, by the engine's clock. Frame: from the media plane's push to the "
            "output's arrival there, waiting for the step before included.",
        ],
    )


async def _measure(checkpoint: str, rows: int, arguments: argparse.Namespace) -> Figures:
    logging.getLogger("rtc_server.engine").setLevel(logging.ERROR)
    figures = Figures()
    measuring = False

    def on_step(done: StepDone) -> None:
        if measuring:
            figures.steps.append(done.seconds)
            figures.rows.append(len(done.outputs))
            figures.dropped += done.dropped

    options: dict[str, Any] = {
        "model": checkpoint,
        "slots": rows,
        "device": "cpu",
        "threads": arguments.threads,
        "seed": 1,
    }
    spec = ChildSpec(_FACTORY, options, log_level=logging.WARNING)
    client = EngineClient("bench", lambda: TappedLink(ProcessLink(spec), on_step), Metrics())
    client.start()
    try:
        await client.wait_settled()
        phases = random.Random(rows)
        ends_at = time.monotonic() + arguments.warm + arguments.seconds
        tasks = [
            asyncio.create_task(_speak(client, figures, phases.uniform(0, _FRAME_S), ends_at), name=f"row-{row}")
            for row in range(rows)
        ]
        await asyncio.sleep(arguments.warm)
        measuring = True
        figures.frames.clear()
        figures.pushed = 0
        await asyncio.gather(*tasks)
    finally:
        await client.close()
    return figures


async def _speak(client: EngineClient, figures: Figures, phase_s: float, ends_at: float) -> None:
    stream = await client.open(_Ear(figures.frames))
    pcm = (0.1 * np.random.default_rng(1).standard_normal(FRAME_SAMPLES)).astype(np.float32)
    due = time.monotonic() + phase_s
    while due < ends_at:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        stream.push(pcm)
        figures.pushed += 1
        due += _FRAME_S
    await asyncio.sleep(_FRAME_S)
    stream.close()


def _cells(runs: list[Figures]) -> list[str]:
    def milliseconds(name: str, percentile: float) -> str:
        every = (getattr(one, name) for one in runs)
        return spread([float(np.percentile(values, percentile)) * 1000 for values in every if values], digits=1)

    return [
        *(milliseconds("steps", percentile) for percentile in (50, 95, 99, 100)),
        spread([float(np.mean(one.rows)) for one in runs if one.rows], digits=1),
        *(milliseconds("frames", percentile) for percentile in (50, 99)),
        spread([float(max(one.pushed - len(one.frames), one.dropped)) for one in runs]),
    ]
