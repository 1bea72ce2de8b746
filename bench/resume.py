"""``python -m bench resume``: how soon a dead path is noticed, and how long the way back takes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import uvloop

from bench.systems import OURS, SYSTEMS
from bench.table import TAIL, publish, tail
from lab.network.vanishing import vanish
from lab.servers import running
from lab.sound.tones import VOICED_DBFS, Ear, tone
from lab.waiting import until
from rtc_server.client import VoiceClient

HELP = "how soon a dead path is noticed, and how long a client takes to be back in its conversation"

_POLL_S: Final = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=20, help="losses")


@dataclass(slots=True)
class Measured:
    """Seconds. ``connected``: offer to the first event of a first connection; ``back``: the same of a resume;
    ``heard``: from the resume's offer to the first sound."""

    noticed: list[float] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)


def run(arguments: argparse.Namespace) -> None:
    measured = uvloop.run(_measure(arguments.rounds))
    publish(
        "A path that dies",
        ["", *TAIL],
        [[label, *tail([1000 * value for value in values(measured)], "ms")] for label, values in _ROWS],
        [
            f"{arguments.rounds} calls of the package's own client, one after the other; server and client on one "
            "machine, the default settings. A lost path is one on which nothing comes through from one moment on."
        ],
    )


async def _measure(rounds: int) -> Measured:
    measured = Measured()
    async with running(SYSTEMS[OURS]) as server, aiohttp.ClientSession() as http:
        for number in range(rounds):
            print(f"round {number + 1}", file=sys.stderr)
            await _round(server.url, http, measured)
    return measured


async def _round(url: str, http: aiohttp.ClientSession, into: Measured) -> None:
    ear = Ear()
    client = VoiceClient(url, tone(440), on_voice=ear)
    async with contextlib.AsyncExitStack() as stack:
        began = time.monotonic()
        await stack.enter_async_context(client)
        await client.wait_for("connected", resumed=False)
        into.connected.append(time.monotonic() - began)
        await until(lambda: ear.samples > 0, "a voice")
        cut = time.monotonic()
        vanish(client)
        while await _state(http, f"{url}/api/sessions/{client.session}") != "waiting":  # noqa: ASYNC110 - in another process
            await asyncio.sleep(_POLL_S)
        into.noticed.append(time.monotonic() - cut)
        heard, began = ear.samples, time.monotonic()
        await client.resume()
        await client.wait_for("connected", resumed=True)
        into.back.append(time.monotonic() - began)
        await ear.until_level(above=VOICED_DBFS, window_s=0.08)
        assert ear.samples > heard
        into.heard.append(time.monotonic() - began)
        client.send({"type": "bye"})
        await client.wait_for("disconnected")


async def _state(http: aiohttp.ClientSession, url: str) -> str:
    async with http.get(url) as response:
        return str((await response.json())["state"])


_ROWS: Final[Sequence[tuple[str, Callable[[Measured], Sequence[float]]]]] = (
    ("first connection: offer → first event", lambda measured: measured.connected),
    ("path dead → session waits", lambda measured: measured.noticed),
    ("resume: offer → first event", lambda measured: measured.back),
    ("resume: offer → first sound", lambda measured: measured.heard),
)
