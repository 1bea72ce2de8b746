"""``python -m bench passed``: what it costs that a request about a session comes to another media node than the one
that has it, which passes it on to that one, by HTTP and signed, and its answer back."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np

from bench.systems import OURS, SYSTEMS
from bench.table import publish, spread
from lab.engine_process import key_file
from lab.pool_process import pool_process
from lab.servers import RunningServer, running
from lab.waiting import until_told
from rtc_server.client import VoiceClient

HELP = "what a request about a session costs that another media node passes on to the one that has it"

_OWNER: Final = "the node that has the session"
_OTHER: Final = "another node, which passes it on"
_WARM: Final = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--requests", type=int, default=1000, help="in a round, to each of both nodes, one after the other"
    )
    parser.add_argument("--rounds", type=int, default=5)


@dataclasses.dataclass(slots=True)
class Measured:
    """An entry a round. ``median``, ``p99``: of the answers' times, in seconds. ``cpu``: seconds of CPU time a request,
    of both nodes together."""

    median: list[float] = dataclasses.field(default_factory=list)
    p99: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)


def run(arguments: argparse.Namespace) -> None:
    measured: dict[str, Measured] = defaultdict(Measured)
    asyncio.run(_measure(arguments, measured))
    publish(
        "A request about a session, asked of",
        ["", "answer after, median", "p99", "CPU time of both nodes"],
        [
            [name, *(spread([value * 1000 for value in values], "ms", 2) for values in (of.median, of.p99, of.cpu))]
            for name, of in measured.items()
        ],
        [
            f"{arguments.rounds} rounds of {arguments.requests} requests (`GET /api/sessions/ID`) to each, one after "
            "the other by one connection: median (least–most) of the rounds' figures. Two media nodes of one pool, on "
            "this machine's loopback; the session is an echo call, whose own CPU time is in the figures."
        ],
    )


async def _measure(arguments: argparse.Namespace, into: dict[str, Measured]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = await stack.enter_async_context(pool_process(directory))
        await pool.wait_ready()
        owner, other = [
            await stack.enter_async_context(_node(name, pool.address, directory)) for name in ("owner", "other")
        ]
        await until_told(lambda: _ready(owner), "its engine")
        client = await stack.enter_async_context(VoiceClient(owner.url, service="echo"))
        await client.wait_for("connected")
        path = f"/api/sessions/{client.session}"
        asked = {
            name: await stack.enter_async_context(aiohttp.ClientSession(server.url))
            for name, server in ((_OWNER, owner), (_OTHER, other))
        }

        async def known() -> bool:
            async with asked[_OTHER].get(path) as answer:
                return answer.status == 200

        await until_told(known, "that the nodes know each other")
        for _ in range(arguments.rounds):
            for name, http in asked.items():
                await _times(http, path, _WARM)
                before = owner.cpu_s() + other.cpu_s()
                times = await _times(http, path, arguments.requests)
                used = owner.cpu_s() + other.cpu_s() - before
                into[name].median.append(float(np.median(times)))
                into[name].p99.append(float(np.percentile(times, 99)))
                into[name].cpu.append(used / arguments.requests)


async def _ready(server: RunningServer) -> bool:
    """Whether its own engine is there. That of the pool never is, which ``/readyz`` would wait for."""
    async with aiohttp.ClientSession(server.url) as http, http.get("/status") as answer:
        return bool((await answer.json())["engines"]["echo"]["state"] == "ready")


async def _times(http: aiohttp.ClientSession, path: str, count: int) -> list[float]:
    """Seconds until each was answered."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        async with http.get(path) as answer:
            await answer.read()
            answer.raise_for_status()
        times.append(time.perf_counter() - began)
    return times


@contextlib.asynccontextmanager
async def _node(name: str, pool: str, directory: Path) -> AsyncIterator[RunningServer]:
    ours = SYSTEMS[OURS]

    def command(port: int) -> list[str]:
        shared = ("--pool", pool, "--cluster-key", str(key_file(directory)), "--pool-services", "transcribe")
        return [*ours.command(port), *shared, "--node", name, "--node-url", f"http://127.0.0.1:{port}"]

    async with running(dataclasses.replace(ours, command=command)) as server:
        yield server
