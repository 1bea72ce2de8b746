"""``python -m bench calls``: what a call costs and how much it is delayed, beside other servers."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load, LoadResult, LoadSpec
from bench.systems import SYSTEMS, of_tree
from bench.table import publish, spread
from lab.servers import RunningServer, System, running

HELP = "CPU, delay and connecting time of echo calls: bare aiortc, FastRTC, this server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sessions", type=int, default=3, help="calls at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="measured for so long (default: %(default)s)")
    parser.add_argument("--warm", type=float, default=3, help="seconds before that (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times each (default: %(default)s)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="which servers")
    parser.add_argument("--beside", type=Path, help="a working tree of another version of this server")
    parser.add_argument("--tape", choices=("warble", "speech"), default="speech", help="what the clients say")
    parser.add_argument("--server-args", default="", help="further arguments of this server, as one string")


@dataclass(frozen=True, slots=True)
class Round:
    """One server under one load. ``cpu_share``: of one core, for each session. ``memory_bytes``: at its end."""

    cpu_share: float
    memory_bytes: float
    load: LoadResult


def run(arguments: argparse.Namespace) -> None:
    rounds = asyncio.run(_measure(arguments))
    systems = _systems(arguments)
    publish(
        f"Echo calls, {arguments.sessions} at a time",
        ["", *(system.name for system in systems)],
        [[label, *(cell(system, rounds[system.name]) for system in systems)] for label, cell in _ROWS],
        [
            f"Median (least–most) of {arguments.rounds} rounds of {arguments.seconds:g} s each, the servers in turn; "
            f"the connecting times: of all {arguments.rounds * arguments.sessions} calls.",
            "CPU: user and system time of the server's process and its children, 100 % being one core.",
            "Memory: of the same, what they share counted once.",
            "Delay: from a packet's leaving the client to the arrival of the same sound; of all packets of a round. "
            "The client has no jitter buffer and its codec is accounted for.",
        ],
    )


def _systems(arguments: argparse.Namespace) -> list[System]:
    beside = [] if arguments.beside is None else [of_tree(arguments.beside)]
    return [*beside, *(SYSTEMS[name] for name in arguments.systems)]


async def _measure(arguments: argparse.Namespace) -> dict[str, list[Round]]:
    systems = _systems(arguments)
    rounds: dict[str, list[Round]] = {system.name: [] for system in systems}
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for system in systems:
            extra = arguments.server_args.split() if system.frame_s else []
            servers.append(await stack.enter_async_context(running(system, extra)))
        for number in range(arguments.rounds):
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                rounds[server.system.name].append(await _one(server, arguments))
    return rounds


async def _one(server: RunningServer, arguments: argparse.Namespace) -> Round:
    spec = LoadSpec(server.url, server.system.dialect, arguments.sessions, arguments.warm, arguments.tape)
    load = await Load.start(spec)
    began, cpu = time.monotonic(), server.cpu_s()
    await asyncio.sleep(arguments.seconds)
    used, lasted = server.cpu_s() - cpu, time.monotonic() - began
    return Round(used / lasted / arguments.sessions, server.memory_bytes(), await load.stop())


Cell = Callable[[System, Sequence[Round]], str]


def _each(value: Callable[[System, Round], float | None], unit: str, factor: float = 1.0, digits: int = 0) -> Cell:
    def cell(system: System, rounds: Sequence[Round]) -> str:
        values = [value(system, one) for one in rounds]
        return spread([None if number is None else number * factor for number in values], unit, digits)

    return cell


def _of_all_calls(values: Callable[[LoadResult], Sequence[float | None]]) -> Cell:
    def cell(_: System, rounds: Sequence[Round]) -> str:
        every = [value for one in rounds for value in values(one.load)]
        return spread([None if value is None else value * 1000 for value in every], "ms")

    return cell


def _less_frame(value: Callable[[LoadResult], float]) -> Callable[[System, Round], float | None]:
    return lambda system, one: value(one.load) - system.frame_s


_ROWS: Sequence[tuple[str, Cell]] = (
    ("server CPU per session", _each(lambda _, one: one.cpu_share, "%", 100, 2)),
    ("server memory, all sessions", _each(lambda _, one: one.memory_bytes, "MiB", 2**-20)),
    ("added delay, p50", _each(lambda _, one: one.load.p50_s, "ms", 1000)),
    ("added delay, p99", _each(lambda _, one: one.load.p99_s, "ms", 1000)),
    ("added delay less the 80 ms frame, p50", _each(_less_frame(lambda load: load.p50_s), "ms", 1000)),
    ("added delay less the 80 ms frame, p99", _each(_less_frame(lambda load: load.p99_s), "ms", 1000)),
    ("offer → answer", _of_all_calls(lambda load: load.offer_to_answer_s)),
    ("offer → connected", _of_all_calls(lambda load: load.offer_to_connected_s)),
    ("offer → first audio", _of_all_calls(lambda load: load.offer_to_sound_s)),
    ("longest gap", _each(lambda _, one: one.load.longest_gap_s, "ms", 1000)),
    ("correlation with what was said", _each(lambda _, one: one.load.likeness, "", 1, 2)),
    ("(the client's own CPU per session)", _each(lambda _, one: one.load.client_cpu_share, "%", 100, 1)),
)
