"""``python -m bench pool``: how long clients wait for an engine: the first of a pool on Ray that has none, and for the
next sound when theirs was killed, in a pool with another one that stands by, and where there is one engine alone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import soxr
import uvloop

from bench.quiet import errors_only
from bench.table import TAIL, publish, tail
from lab.engine_process import key_file
from lab.pool_process import hosted_engines, pool_process
from lab.ray_cluster import RayCluster, environment, ray_cluster
from lab.serving import started
from lab.sound.mouth import Mouth
from lab.sound.tones import VOICED_DBFS, Ear, tone
from lab.speech import espeak
from lab.speech.spoken import Voice
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.client import MICROPHONE_HZ, OfferRefused, VoiceClient
from rtc_server.config import Settings

HELP = "how long clients wait for an engine: of a pool that has none, and after theirs was killed"

_PATIENCE_S: Final = 120.0
_AGAIN_S: Final = 0.1
"""Between the offers of a client that is told to come back: how long it takes, not how long it is told to wait."""
_HEARD_DBFS: Final = -45.0
_WINDOW_S: Final = 0.08
_UNANSWERED_S: Final = 6.0
_TIMES: Final = 3
"""A model that could not keep up for a moment has misheard: it is greeted again, and that time counts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="from zero")
    parser.add_argument("--kills", type=int, default=20, help="engines that are killed, of each kind")


@dataclass(slots=True)
class Measured:
    """Seconds. From zero: from the first offer. ``told``: Retry-After of that offer. Killed: from the kill."""

    told: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    alone_ready: list[float] = field(default_factory=list)
    alone_back: list[float] = field(default_factory=list)


@errors_only("rtc_server")
def run(arguments: argparse.Namespace) -> None:
    measured = uvloop.run(_measure(arguments.rounds, arguments.kills))
    publish(
        "An engine that is waited for",
        ["", *TAIL],
        [[label, *tail(values(measured), "s", 2)] for label, values in _ROWS],
        [
            f"{arguments.rounds} rounds from zero, {arguments.kills} kills of each kind, one after the other; all on "
            "one machine: Ray's head, a node, the pool, engines, media server and client. A client that is told "
            f"to come back asks again every {_AGAIN_S * 1000:.0f} ms. Of the pool, the killed engine is echo, with "
            "another one that stands by; the single one is Pico. The sound comes by the same connection."
        ],
    )


async def _measure(rounds: int, kills: int) -> Measured:
    measured = Measured()
    with tempfile.TemporaryDirectory() as name:
        async with ray_cluster(nodes=1) as ray:
            pico = ("--services", "dialogue", "--model", "pico", "--allow-slow", "--idle-s", "1")
            async with _served(ray, Path(name), "dialogue", *pico) as server:
                for number in range(rounds):
                    print(f"from zero, round {number + 1}", file=sys.stderr)
                    await until(lambda: not hosted_engines(Path(name)), "no engine", _PATIENCE_S)
                    await _from_zero(_url(server), measured)
            await ray.clear()
            echo = ("--services", "echo", "--model", "echo", "--echo-slots", "1", "--idle-s", "1")
            spare = ("--min", "1", "--max", "3", "--spare-slots", "1")
            async with _served(ray, Path(name), "echo", *echo, *spare) as server:
                while len(measured.back) < kills:
                    print(f"killed, round {len(measured.back) + 1}", file=sys.stderr)
                    await until(lambda: len(hosted_engines(Path(name))) == 1, "one engine", _PATIENCE_S)
                    # Another that starts or is about to be stopped is not the one that the client is at: another round.
                    if len(engines := hosted_engines(Path(name))) == 1:
                        with contextlib.suppress(psutil.NoSuchProcess, TimeoutError):
                            await _killed(server, engines[0], Path(name), measured)
    await _alone(kills, measured)
    return measured


@contextlib.asynccontextmanager
async def _served(ray: RayCluster, directory: Path, service: str, *options: str) -> AsyncIterator[Server]:
    """A media server whose engines are those of a pool on ``ray``."""
    arguments = ("--ray-address", ray.address, "--gpus", "0", *options)
    async with pool_process(directory, *arguments, environment=environment()) as pool:
        await pool.wait_ready()
        own = {"pool": pool.address, "pool_services": (service,), "cluster_key": str(key_file(directory))}
        server = Server(Settings(port=0, model="echo", stt="none", drain_s=0, offers_per_minute=1_000_000, **own))  # type: ignore[arg-type]
        async with started(server):
            yield server


def _url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def _from_zero(url: str, into: Measured) -> None:
    ear, microphone = Ear(), _Greeting()
    began = time.monotonic()
    async with _connected(url, microphone, ear) as (_, told_s):
        into.told.append(told_s)
        into.connected.append(time.monotonic() - began)
        microphone.begin()
        await ear.until_level(above=_HEARD_DBFS, window_s=0.08)
        into.heard.append(time.monotonic() - began)


async def _killed(server: Server, victim: psutil.Process, directory: Path, into: Measured) -> None:
    ear = Ear()
    async with _connected(_url(server), tone(440), ear) as (client, _):
        await until(lambda: len(hosted_engines(directory)) == 2, "one that stands by", _PATIENCE_S)
        await until(lambda: server.engines["echo"].has_room, "it is ready, and known", _PATIENCE_S)
        began = time.monotonic()
        victim.kill()
        await client.wait_for("error", code="engine_failed")
        into.lost.append(time.monotonic() - began)
        await client.wait_for("state", _PATIENCE_S, reason="restarted")
        await _sound(ear, VOICED_DBFS)
        into.back.append(time.monotonic() - began)
        await until(lambda: len(hosted_engines(directory)) == 2, "one in the place of that", _PATIENCE_S)


async def _alone(kills: int, into: Measured) -> None:
    """One engine, which is started again. The model of the next sound is greeted as soon as it is there."""
    server = Server(Settings(port=0, model="pico", allow_slow=True, stt="none", drain_s=0, offers_per_minute=1_000_000))
    async with started(server):
        for number in range(kills):
            print(f"alone, round {number + 1}", file=sys.stderr)
            engine, ear, microphone = server.engines["dialogue"], Ear(), _Greeting()
            await engine.wait_ready()
            async with _connected(_url(server), microphone, ear) as (client, _):
                assert engine.pid is not None
                began = time.monotonic()
                psutil.Process(engine.pid).kill()
                await client.wait_for("state", _PATIENCE_S, reason="restarted")
                into.alone_ready.append(time.monotonic() - began)
                microphone.begin()
                await _sound(ear, _HEARD_DBFS)
                into.alone_back.append(time.monotonic() - began)


async def _sound(ear: Ear, above_dbfs: float) -> None:
    """Until something is heard, of what comes from now on."""
    until_samples = ear.samples + round(_WINDOW_S * MODEL_RATE_HZ)
    await until(lambda: ear.samples >= until_samples, "the voice's time", _PATIENCE_S)
    await ear.until_level(above=above_dbfs, window_s=_WINDOW_S)


@contextlib.asynccontextmanager
async def _connected(
    url: str, microphone: Callable[[int], FloatArray], ear: Ear
) -> AsyncIterator[tuple[VoiceClient, float]]:
    """A client, as soon as it is let in, and the first Retry-After that it was told; 0 for none."""
    told_s: float | None = None
    deadline = time.monotonic() + _PATIENCE_S
    async with contextlib.AsyncExitStack() as stack:
        while True:
            client = VoiceClient(url, microphone, on_voice=ear)
            try:
                await stack.enter_async_context(client)
                break
            except OfferRefused as refused:
                if time.monotonic() > deadline:
                    raise
                told_s = refused.retry_after_s if told_s is None else told_s
                await asyncio.sleep(_AGAIN_S)
        await client.wait_for("connected")
        yield client, told_s or 0.0


class _Greeting(Mouth):
    """A microphone that says "hello" from :meth:`begin` on, as often as it takes."""

    def __init__(self) -> None:
        super().__init__()
        pcm = espeak.speak("hello", Voice("en-us+m7", 160)).pcm
        self._hello = np.asarray(soxr.resample(pcm, MODEL_RATE_HZ, MICROPHONE_HZ), dtype=np.float32)

    def begin(self) -> None:
        again = np.pad(self._hello, (0, round(_UNANSWERED_S * MICROPHONE_HZ)))
        self.utter(np.tile(again, _TIMES))


_ROWS: Final[Sequence[tuple[str, Callable[[Measured], Sequence[float]]]]] = (
    ("no engine: offer → Retry-After told", lambda measured: measured.told),
    ("no engine: offer → connected (Pico)", lambda measured: measured.connected),
    ('no engine: offer → first sound (Pico, greeted with "hello")', lambda measured: measured.heard),
    ("engine of a pool killed → client told", lambda measured: measured.lost),
    ("engine of a pool killed → next sound", lambda measured: measured.back),
    ("single engine killed → model there again (Pico)", lambda measured: measured.alone_ready),
    ('single engine killed → next sound (Pico, greeted with "hello")', lambda measured: measured.alone_back),
)
