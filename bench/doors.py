"""``python -m bench doors``: what each door costs and delays, beside ``/api/offer``; and whether delay grows in one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from bench.load import Load, LoadResult, LoadSpec
from bench.questions import questions_tape
from bench.systems import OURS, SYSTEMS
from bench.table import publish, spread
from lab.servers import RunningServer, running

HELP = "delay and CPU through each door (OpenAI Live and Realtime, Moshi's), beside /api/offer"

PICO: Final = ("--model", "pico", "--slots", "1", "--stt", "none", "--allow-slow", "--max-step-ms", "100000")
_READY_S: Final = 90.0
_DRIFT_PPM: Final = 200.0
"""A sound card's clock that runs fast: what it records in excess has to go somewhere."""
_LONGEST_DELAY_S: Final = 12.0


@dataclass(frozen=True, slots=True)
class Door:
    """``way``: see :func:`bench.clients.make_client`. ``pieces``: of 20 ms, in a message."""

    name: str
    way: str
    pieces: int = 1


OFFER: Final = Door("/api/offer (WebRTC)", "rtc-server")
DOORS: Final = (
    OFFER,
    Door("OpenAI Live, WebRTC", "live-webrtc"),
    Door("OpenAI Realtime, WebRTC", "realtime-webrtc"),
    Door("OpenAI Live, WebSocket", "live-websocket"),
    Door("OpenAI Realtime, WebSocket", "realtime-websocket"),
    Door("Moshi, WebSocket", "moshi"),
)
GATHERED: Final = (
    Door("OpenAI Live, WebSocket, 80 ms", "live-websocket", 4),
    Door("OpenAI Realtime, WebSocket, 80 ms", "realtime-websocket", 4),
    Door("Moshi, WebSocket, 80 ms", "moshi", 4),
)
"""The same with a frame in each message, as Moshi's clients and others send them."""
WHIP: Final = Door("WHIP", "whip")
"""Its address names a service, the echo's: it is asked nothing."""
ECHOING: Final = (*DOORS, WHIP, *GATHERED)
WRITING: Final = (
    Door("Kyutai's speech-to-text, WebSocket", "asr", 4),
    Door("OpenAI translation, WebSocket", "translation"),
)
"""What is said through these comes back as words, or in another language: of them there is the cost alone, with speech
for the recogniser."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", type=int, default=3, help="echo calls at a time")
    parser.add_argument("--seconds", type=float, default=8, help="of echo, each time")
    parser.add_argument("--warm", type=float, default=2, help="seconds before that")
    parser.add_argument("--questions", type=int, default=8, help="to Pico, each time; 0 for none")
    parser.add_argument("--rounds", type=int, default=3, help="times each")
    parser.add_argument("--minutes", type=float, help="measure this instead: all doors at once, for so long")


@dataclass(slots=True)
class Measured:
    """Of one door. ``cpu``: shares of a core, of the server's process, for each session. ``echoes``: a round each."""

    cpu: list[float] = field(default_factory=list)
    echoes: list[LoadResult] = field(default_factory=list)
    answers_s: list[float | None] = field(default_factory=list)

    @property
    def p50_s(self) -> float:
        return statistics.median(echo.p50_s for echo in self.echoes)


def run(arguments: argparse.Namespace) -> None:
    if arguments.minutes:
        _publish_minutes(asyncio.run(_for_long(arguments.minutes)), arguments.minutes)
    else:
        _publish(asyncio.run(_measure(arguments)), arguments)


async def _measure(arguments: argparse.Namespace) -> dict[Door, Measured]:
    measured = {door: Measured() for door in (*ECHOING, *WRITING)}
    async with running(SYSTEMS[OURS]) as echo, answering() as pico:
        for number in range(arguments.rounds):
            print(f"round {number + 1}", file=sys.stderr)
            for door in _in_turn(ECHOING, number):
                await _call(echo, door, arguments, measured[door])
            for door in _in_turn(DOORS, number) if arguments.questions else ():
                measured[door].answers_s += await ask(pico.url, door, arguments.questions)
    async with answering("--stt", "pico-stt", "--stt-slots", str(arguments.sessions)) as writing:
        for _ in range(arguments.rounds):
            for door in WRITING:
                await _call(writing, door, arguments, measured[door], "speech")
    return measured


def _in_turn(doors: Sequence[Door], number: int) -> Sequence[Door]:
    first = number % len(doors)
    return [*doors[first:], *doors[:first]]


async def _call(
    server: RunningServer, door: Door, arguments: argparse.Namespace, into: Measured, tape: str = "warble"
) -> None:
    spec = LoadSpec(server.url, door.way, arguments.sessions, arguments.warm, tape, pieces=door.pieces)
    load = await Load.start(spec)
    began, cpu_s = time.monotonic(), server.cpu_s(children=False)
    await asyncio.sleep(arguments.seconds)
    used_s, lasted_s = server.cpu_s(children=False) - cpu_s, time.monotonic() - began
    into.cpu.append(used_s / lasted_s / arguments.sessions)
    into.echoes.append(await load.stop())


async def ask(url: str, door: Door, questions: int) -> list[float | None]:
    """Seconds from the last sample of each question to the first of its answer; see :func:`answer_times`."""
    load = await Load.start(LoadSpec(url, door.way, 1, 0.0, questions=questions))
    await asyncio.sleep(questions_tape(questions).seconds)
    return (await load.stop()).answers_s


@contextlib.asynccontextmanager
async def answering(*options: str) -> AsyncIterator[RunningServer]:
    """A server with Pico, and all its models loaded. Raises TimeoutError."""
    async with running(SYSTEMS[OURS], (*PICO, *options)) as server, aiohttp.ClientSession() as http:
        async with asyncio.timeout(_READY_S):
            while not await _all_ready(http, server.url):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.2)
        yield server


async def _all_ready(http: aiohttp.ClientSession, url: str) -> bool:
    async with http.get(f"{url}/status") as answer:
        return all(engine["state"] == "ready" for engine in (await answer.json())["engines"].values())


async def _for_long(minutes: float) -> dict[Door, LoadResult]:
    """A conversation through each door, of a client with a fast clock."""
    async with running(SYSTEMS[OURS]) as server:
        specs = [
            LoadSpec(server.url, door.way, 1, 5.0, "speech", drift_ppm=_DRIFT_PPM, longest_delay_s=_LONGEST_DELAY_S)
            for door in DOORS
        ]
        loads = await asyncio.gather(*(Load.start(spec) for spec in specs))
        await asyncio.sleep(minutes * 60)
        return dict(zip(DOORS, await asyncio.gather(*(load.stop() for load in loads)), strict=True))


def _publish(measured: dict[Door, Measured], arguments: argparse.Namespace) -> None:
    def row(door: Door, found: Measured) -> list[str]:
        answered = [answer for answer in found.answers_s if answer is not None]
        delays = [
            spread([echo.p50_s * 1000 for echo in found.echoes], "ms"),
            spread([echo.p99_s * 1000 for echo in found.echoes], "ms"),
            f"{(found.p50_s - measured[OFFER].p50_s) * 1000:+.0f} ms",
        ]
        return [
            door.name,
            *(("–", "–", "–") if door in WRITING else delays),
            spread([share * 100 for share in found.cpu], "%", 1),
            spread([answer * 1000 for answer in answered], "ms"),
            f"{len(answered)} of {len(found.answers_s)}" if found.answers_s else "–",
        ]

    publish(
        "Doors",
        [
            *("door", "echo: delay, p50", "p99", "over /api/offer, p50", "server CPU per session"),
            *("question → answer", "answered"),
        ],
        [row(door, found) for door, found in measured.items()],
        [
            f"Echo: {arguments.sessions} calls at a time for {arguments.seconds:g} s; Pico: one call, "
            f"{arguments.questions} questions; {arguments.rounds} rounds, the doors in turn in each: median "
            "(least–most), of the rounds, and of all answers.",
        ],
    )


def _publish_minutes(found: dict[Door, LoadResult], minutes: float) -> None:
    def row(door: Door, result: LoadResult) -> list[str]:
        (call,) = result.minutes_s
        return [door.name, *(f"{minute * 1000:.0f}" for minute in (call[0], call[-1], max(call)))]

    publish(
        f"{minutes:g} minutes through each door",
        ["door", "first minute", "last", "worst"],
        [row(door, result) for door, result in found.items()],
        [
            f"Median delay of a minute, ms. All doors at once, a call each, the clients' clocks {_DRIFT_PPM:g} ppm "
            "fast. What is said is speech, with the pauses between sentences."
        ],
    )
