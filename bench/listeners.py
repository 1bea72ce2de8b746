"""``python -m bench listeners``: what each client costs that only listens to a session (WHEP)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from aiortc import RTCConfiguration

from bench.systems import OURS, SYSTEMS, of_tree
from bench.table import publish, spread
from lab.servers import RunningServer, System, running
from lab.sound.tones import tone
from lab.waiting import until
from lab.whip import posted
from rtc_server.client import MicrophoneTrack
from rtc_server.webrtc.transceivers import LeanPeerConnection

HELP = "CPU of a session with clients that only listen, by their number"

_TONE_HZ = 440


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listeners", default="0,1,2,4,8", help="of a session, by commas")
    parser.add_argument("--seconds", type=float, default=8, help="measured for so long")
    parser.add_argument("--rounds", type=int, default=3, help="times each")
    parser.add_argument("--beside", type=Path, help="a working tree of another version of this server")


def run(arguments: argparse.Namespace) -> None:
    counts = [int(count) for count in arguments.listeners.split(",")]
    systems = [] if arguments.beside is None else [of_tree(arguments.beside)]
    systems.append(SYSTEMS[OURS])
    shares = asyncio.run(_measure(systems, counts, arguments))
    rows = []
    for count in counts:
        cells = [spread([100 * share for share in shares[system.name, count]], "%", 2) for system in systems]
        rows.append([str(count), *cells, *(_each(shares, system, counts, count) for system in systems)])
    publish(
        "One echo session and those who listen to it",
        ["listeners", *(system.name for system in systems), *(f"{system.name}: for each" for system in systems)],
        rows,
        [
            f"Median (least–most) of {arguments.rounds} rounds of {arguments.seconds:g} s, the servers in turn: user "
            "and system time of the server's process and its children, 100 % being one core.",
            "For each: the medians' difference from that without listeners, by their number.",
        ],
    )


def _each(shares: dict[tuple[str, int], list[float]], system: System, counts: Sequence[int], count: int) -> str:
    if not count or 0 not in counts:
        return "–"
    more = statistics.median(shares[system.name, count]) - statistics.median(shares[system.name, 0])
    return f"{100 * more / count:.2f} %"


async def _measure(
    systems: Sequence[System], counts: Sequence[int], arguments: argparse.Namespace
) -> dict[tuple[str, int], list[float]]:
    shares: dict[tuple[str, int], list[float]] = {(system.name, count): [] for system in systems for count in counts}
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(running(system)) for system in systems]
        for _ in range(arguments.rounds):
            for count in counts:
                for server in servers:
                    shares[server.system.name, count].append(await _share(server, count, arguments.seconds))
    return shares


async def _share(server: RunningServer, listeners: int, seconds: float) -> float:
    """Of a core, while a session runs that so many listen to."""
    async with contextlib.AsyncExitStack() as stack:
        speaker = LeanPeerConnection(RTCConfiguration(iceServers=[]))
        speaker.addTransceiver(MicrophoneTrack(tone(_TONE_HZ)), direction="sendonly")
        session = await stack.enter_async_context(posted(server.url, "/whip/echo", speaker))
        for _ in range(listeners):
            listener = LeanPeerConnection(RTCConfiguration(iceServers=[]))
            listener.addTransceiver("audio", direction="recvonly")
            await stack.enter_async_context(posted(server.url, f"/whep/{session.id}", listener))
            await until(lambda peer=listener: peer.rtp_figures().packets_received, "the voice")  # type: ignore[misc]
        began, cpu = time.monotonic(), server.cpu_s()
        await asyncio.sleep(seconds)
        return (server.cpu_s() - cpu) / (time.monotonic() - began)
