"""``python -m bench moved``: how long a client hears nothing while its conversation goes elsewhere: to another media
node because its own is told to end, and to another engine because that one is."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.quiet import errors_only
from bench.table import publish, spread
from lab.engine_process import EngineProcess, engine_process, key_file
from lab.network.front import Front
from lab.pool_process import pool_process
from lab.serving import started
from lab.sound.tones import tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FRAME_MS, FloatArray, level_dbfs
from rtc_server.client import VoiceClient
from rtc_server.config import Settings

HELP = "how long a client hears nothing while its conversation goes to another media node, or to another engine"

_SETTLED_S: Final = 2.0
"""Of sound, before and after."""
_DRAIN_S: Final = 30.0
_AUDIBLE_DBFS: Final = -40.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=8, help="moves of each kind")


@dataclass(slots=True)
class Measured:
    """Seconds. ``asked``: from the word that the media node stops to the answer of another. ``node``, ``engine``: the
    longest time between two audible blocks of the voice around a move; ``still``: without one."""

    asked: list[float] = field(default_factory=list)
    node: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    still: list[float] = field(default_factory=list)


class _Heard:
    """When each audible block of the voice came."""

    def __init__(self) -> None:
        self._at: list[float] = []

    def __call__(self, pcm: FloatArray) -> None:
        if level_dbfs(pcm) > _AUDIBLE_DBFS:
            self._at.append(time.monotonic())

    async def settle(self) -> None:
        """Until it has been heard for a while from now on."""
        since = time.monotonic()
        await until(lambda: bool(self._at) and self._at[-1] > since + _SETTLED_S, "the voice", 60.0)

    def longest_s(self, since: float) -> float:
        """Between two blocks, of those since then and the last before."""
        first = max((index for index, at in enumerate(self._at) if at <= since), default=0)
        return max(after - before for before, after in itertools.pairwise(self._at[first:]))


@errors_only("rtc_server")
def run(arguments: argparse.Namespace) -> None:
    measured = Measured()
    asyncio.run(_nodes(arguments.rounds, measured))
    asyncio.run(_engines(arguments.rounds, measured))
    rows = [
        ("a media node is told to end: from its word to the answer of another", measured.asked),
        ("a media node is told to end: longest time between blocks of the voice", measured.node),
        ("an engine is told to end: longest time between blocks of the voice", measured.engine),
        ("nothing moves: longest time between blocks of the voice", measured.still),
    ]
    publish(
        "A conversation that moves",
        ["", "median (least–most)"],
        [[name, spread([value * 1000 for value in values], "ms")] for name, values in rows],
        [
            f"{arguments.rounds} times each: an echo call, in which a tone goes out and comes back in blocks of "
            f"{FRAME_MS} ms. Engines are programs of their own, reached over TCP; media nodes, a proxy before them, "
            "and the client are one process."
        ],
    )


async def _nodes(rounds: int, into: Measured) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with engine_process(Path(name), "--engine-service", "echo", "--echo-slots", "2") as engine:
            await engine.wait_ready()
            for number in range(rounds):
                print(f"media nodes, round {number + 1} of {rounds}", file=sys.stderr)
                await _leave_node(Path(name), engine, into)


async def _leave_node(directory: Path, engine: EngineProcess, into: Measured) -> None:
    async with contextlib.AsyncExitStack() as stack:
        at = (f"echo={engine.address}",)
        servers = {name: await stack.enter_async_context(_server(directory, node=name, engine_at=at)) for name in "ab"}
        front = Front({name: f"127.0.0.1:{server.port}" for name, server in servers.items()})
        port = await stack.enter_async_context(front.listening("127.0.0.1", 0))
        client, heard = await _talking(stack, f"http://127.0.0.1:{port}")
        quiet_since = time.monotonic()
        await heard.settle()
        into.still.append(heard.longest_s(quiet_since))
        leaving = servers[str(client.session).partition("-")[0]]
        draining = asyncio.create_task(leaving.admission.drain(_DRAIN_S))
        former = client.session
        await client.wait_for("moving")
        told_at = time.monotonic()
        await until(lambda: client.session != former, "the answer of the other node", 60.0)
        into.asked.append(time.monotonic() - told_at)
        await heard.settle()
        into.node.append(heard.longest_s(told_at))
        await draining


async def _engines(rounds: int, into: Measured) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with pool_process(Path(name)) as pool, contextlib.AsyncExitStack() as stack:
            await pool.wait_ready()
            own = {"pool": pool.address, "pool_services": ("echo",)}
            server = await stack.enter_async_context(_server(Path(name), **own))
            for number in range(rounds):
                print(f"engines, round {number + 1} of {rounds}", file=sys.stderr)
                await _leave_engine(Path(name), pool.address, server, into)
                await until(lambda: not server.engines["echo"].ready, "both engines are known to be gone", 60.0)


async def _leave_engine(directory: Path, pool: str, server: Server, into: Measured) -> None:
    options = ("--engine-service", "echo", "--echo-slots", "1", "--pool", pool, "--drain-s", str(_DRAIN_S))
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(engine_process(directory, *options))
        await first.wait_ready()
        await until(lambda: server.engines["echo"].has_room, "the first engine", 60.0)
        _, heard = await _talking(stack, f"http://127.0.0.1:{server.port}")
        second = await stack.enter_async_context(engine_process(directory, *options))
        await second.wait_ready()
        await until(lambda: server.engines["echo"].has_room, "the second engine", 60.0)
        await heard.settle()
        told_at = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        await first.wait_exit()
        await heard.settle()
        into.engine.append(heard.longest_s(told_at))


async def _talking(stack: contextlib.AsyncExitStack, url: str) -> tuple[VoiceClient, _Heard]:
    heard = _Heard()
    client = await stack.enter_async_context(VoiceClient(url, tone(440), on_voice=heard))
    await client.wait_for("connected")
    await heard.settle()
    return client, heard


@contextlib.asynccontextmanager
async def _server(directory: Path, **settings: str | Sequence[str]) -> AsyncIterator[Server]:
    own = {"cluster_key": str(key_file(directory)), "model": "echo", "stt": "none", "vad": "off"}
    server = Server(Settings(port=0, drain_s=_DRAIN_S, offers_per_minute=1_000_000, **own, **settings))  # type: ignore[arg-type]
    async with started(server):
        yield server
