"""``python -m bench relay``: what the way through a TURN relay costs, beside the straight one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import uvloop
from aiortc import RTCIceServer

from bench.analysis import judge
from bench.rtp_client import RtpClient
from bench.systems import OURS, SYSTEMS
from bench.table import publish
from bench.tape import Tape, make_tape
from lab.network.coturn import Relay, running_relay
from lab.servers import cpu_s_of, running

HELP = "connecting and echo delay through coturn, by UDP and TCP, beside the straight way"

_PATHS: Final = {"straight": None, "relay, UDP": "udp", "relay, TCP": "tcp"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10, help="calls by each way")
    parser.add_argument("--seconds", type=float, default=5, help="measured for so long, each call")
    parser.add_argument("--warm", type=float, default=1, help="seconds before that")


@dataclass(slots=True)
class Measured:
    """All calls by one way; seconds. ``relay_cpu``: coturn's, shares of a core."""

    gathering: list[float] = field(default_factory=list)
    connecting: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    relay_cpu: list[float] = field(default_factory=list)


def run(arguments: argparse.Namespace) -> None:
    measured = uvloop.run(_measure(arguments))
    publish(
        "Through a relay",
        ["", *_PATHS],
        [[label, *(cell(measured[name]) for name in _PATHS)] for label, cell in _ROWS],
        [
            f"Median / 95th percentile of {arguments.rounds} calls by each way, in turn; the delays: of all packets of "
            f"{arguments.seconds:g} s of each. coturn, server and client on one machine: what the relay itself costs, "
            "without the detour of a real one.",
            "Gathering: until all of the client's candidates are known, before the offer. Delay: from a packet's "
            "leaving the client to the arrival of the same sound; 80 ms of it is the frame.",
        ],
    )


async def _measure(arguments: argparse.Namespace) -> dict[str, Measured]:
    measured = {name: Measured() for name in _PATHS}
    tape = make_tape("speech")
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        relay = stack.enter_context(running_relay(directory))
        server = await stack.enter_async_context(running(SYSTEMS[OURS]))
        for number in range(arguments.rounds):
            print(f"round {number + 1}", file=sys.stderr)
            for name, transport in _PATHS.items():
                await _call(server.url, tape, _ice_server(relay, transport), relay, arguments, measured[name])
    return measured


async def _call(
    url: str, tape: Tape, ice: RTCIceServer | None, relay: Relay, arguments: argparse.Namespace, into: Measured
) -> None:
    client = RtpClient(url, SYSTEMS[OURS].dialect, tape, relay=ice)
    coturn = relay.coturn
    try:
        await client.call()
        await asyncio.sleep(arguments.warm)
        since, cpu = time.monotonic(), cpu_s_of(coturn)
        await asyncio.sleep(arguments.seconds)
        until = time.monotonic()
        into.relay_cpu.append((cpu_s_of(coturn) - cpu) / (until - since))
    finally:
        await client.hang_up()
    verdict = judge(client.log, tape, since, until)
    into.gathering.append(client.log.offered_at - client.log.began_at)
    into.connecting.append(client.log.connected_at - client.log.offered_at)
    into.delays.extend(verdict.delays.seconds.tolist())
    into.gaps.append(verdict.longest_gap_s)


def _ice_server(relay: Relay, transport: str | None) -> RTCIceServer | None:
    if transport is None:
        return None
    mine = relay.credentials()
    return RTCIceServer(urls=[relay.url(transport)], username=mine.username, credential=mine.password)


def _ms(values: Callable[[Measured], Sequence[float]]) -> Callable[[Measured], str]:
    def cell(measured: Measured) -> str:
        median, late = np.percentile(values(measured), [50, 95]) * 1000
        return f"{median:.1f} / {late:.1f} ms"

    return cell


_ROWS: Final[Sequence[tuple[str, Callable[[Measured], str]]]] = (
    ("gathering candidates", _ms(lambda measured: measured.gathering)),
    ("offer → connected", _ms(lambda measured: measured.connecting)),
    ("echo delay", _ms(lambda measured: measured.delays)),
    ("longest gap of a call", _ms(lambda measured: measured.gaps)),
    ("coturn's CPU", lambda measured: f"{np.median(measured.relay_cpu) * 100:.1f} %"),
)
