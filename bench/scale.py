"""``python -m bench scale``: what it adds that an engine is on another machine.

The same engine, ``echo``, behind the link to a child process and behind the one over TCP, encrypted, on this machine's
loopback: so many streams at once, each a frame every 80 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from bench.callers import Figures, call_in_all_slots
from bench.floor import counts
from bench.quiet import errors_only
from bench.table import publish, spread
from lab.engine_process import SECRET, engine_process
from lab.servers import cpu_s_of
from rtc_server.audio import FRAME_MS
from rtc_server.engine.client import EngineClient
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.factory import SlotOptions
from rtc_server.engine.link import EngineLink
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.engine.remote import RemoteLink
from rtc_server.metrics import Metrics

HELP = "frame times of an engine on another machine, beside those of one in a child process"

LINKS: Final = ("child process", "TCP")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", type=counts, default="1,16,64,128", help="at a time, one run for each")
    parser.add_argument("--seconds", type=float, default=8, help="measured for so long")
    parser.add_argument("--warm", type=float, default=2, help="seconds before that")
    parser.add_argument("--rounds", type=int, default=3, help="times each")


@dataclass(slots=True)
class Runs:
    """Of one link with one number of streams, an entry a round. ``node``, ``engine``: CPU seconds a second. ``bytes``:
    a second a stream, both ways, with all headers, of all that went over the loopback."""

    figures: list[Figures] = field(default_factory=list)
    node: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)


@errors_only("rtc_server.engine")
def run(arguments: argparse.Namespace) -> None:
    runs: dict[tuple[int, str], Runs] = defaultdict(Runs)
    with tempfile.TemporaryDirectory() as directory:
        for number in range(1, arguments.rounds + 1):
            print(f"round {number} of {arguments.rounds}", file=sys.stderr)
            for streams in arguments.streams:
                for link in LINKS:
                    asyncio.run(_measure(runs[streams, link], link, streams, arguments, Path(directory)))
    _publish(arguments, runs)


async def _measure(runs: Runs, link: str, streams: int, arguments: argparse.Namespace, directory: Path) -> None:
    figures = Figures(begins_at=float("inf"))
    async with _engine(link, streams, directory) as (make_link, pid_of):
        client = EngineClient("bench", make_link, Metrics())
        client.start()
        try:
            await client.wait_settled()
            async with asyncio.TaskGroup() as group:
                group.create_task(call_in_all_slots(client, figures, streams, arguments.warm, arguments.seconds, 0))
                node, engine = psutil.Process(), psutil.Process(pid_of(client))
                await asyncio.sleep(arguments.warm)
                before = [cpu_s_of(each) for each in (node, engine)]
                carried = _carried_bytes()
                await asyncio.sleep(arguments.seconds - 0.5)
                used = [cpu_s_of(each) - had for each, had in zip((node, engine), before, strict=True)]
                carried = _carried_bytes() - carried
        finally:
            await client.close()
    runs.figures.append(figures)
    for share, kept in zip(used, (runs.node, runs.engine), strict=True):
        kept.append(share / (arguments.seconds - 0.5))
    if link == "TCP":
        runs.bytes.append(carried / streams / (arguments.seconds - 0.5))


def _carried_bytes() -> int:
    """By the loopback since the machine was started."""
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


@contextlib.asynccontextmanager
async def _engine(
    link: str, streams: int, directory: Path
) -> AsyncIterator[tuple[Callable[[], EngineLink], Callable[[EngineClient], int | None]]]:
    """Ways to make the link, and to know the engine's process once it runs."""
    if link == "TCP":
        options = ("--engine-service", "echo", "--echo-slots", str(streams))
        async with engine_process(directory, *options) as engine:
            await engine.wait_ready()
            key = ClusterKey.of(SECRET)
            yield lambda: RemoteLink(engine.address, key), lambda _: engine.process.pid
    else:
        spec = ChildSpec("rtc_server.models.echo:load", SlotOptions(streams), log_level=logging.CRITICAL)
        yield lambda: ProcessLink(spec), lambda client: client.pid


def _publish(arguments: argparse.Namespace, runs: dict[tuple[int, str], Runs]) -> None:
    def cells(each: Runs) -> list[str]:
        times = [
            spread([float(np.percentile(figures.frames, part)) * 1000 for figures in each.figures], digits=2)
            for part in (50, 99, 100)
        ]
        lost = spread([float(figures.lost + figures.overdue) for figures in each.figures])
        return [
            *times,
            lost,
            *(spread([share * 100 for share in shares], "%", 1) for shares in (each.node, each.engine)),
            spread([count / 1000 for count in each.bytes]),
        ]

    publish(
        "An engine on another machine",
        ["streams", "link", "frame p50, ms", "p99", "max", "lost", "CPU: media node", "engine", "kB/s a stream"],
        [[str(streams), link, *cells(each)] for (streams, link), each in runs.items()],
        [
            f"{arguments.rounds} round(s) of {arguments.seconds:g} s: median (least–most) of the rounds' figures. The "
            f"engine is echo; {FRAME_MS} ms of audio for each stream every {FRAME_MS} ms, each at a random phase. "
            "Frame: from the media node's push to the output's arrival there, waiting for other streams' frames "
            "included (the batching delay, as long as a step takes). TCP: on the loopback, encrypted; kB/s: both ways, "
            "with all headers, and whatever else this machine says to itself. The node's CPU "
            "is that of this benchmark, which makes noise for each frame.",
        ],
    )
