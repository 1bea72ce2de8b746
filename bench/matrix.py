"""``python -m bench matrix``: calls over networks as people have them, bad in both directions."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.analysis import first_sound_at, judge
from bench.rtp_client import RtpClient
from bench.systems import SYSTEMS
from bench.table import publish, spread
from bench.tape import Tape, make_tape
from lab.network.profiles import PROFILES, Profile
from lab.network.relay import Relay
from lab.servers import RunningServer, running

HELP = "delay, gaps and connecting times over six kinds of network"

_SETTLE_S = 3.0
_CALL_TIMEOUT_S = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=list(PROFILES), help="which networks")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="which servers")
    parser.add_argument("--seconds", type=float, default=20, help="length of a call")
    parser.add_argument("--rounds", type=int, default=1, help="times each, with seeds that follow each other")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--tape", choices=("warble", "speech"), default="speech", help="what the clients say")
    parser.add_argument("--server-args", default="", help="further arguments of this server, as one string")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``p50_s``, ``p95_s``: delay less the network's own. ``silence_s``: longest where something was said."""

    p50_s: float
    p95_s: float
    silence_s: float
    on_time: float
    likeness: float
    connected_s: float
    sound_s: float | None


def run(arguments: argparse.Namespace) -> None:
    outcomes = asyncio.run(_measure(arguments))
    profiles = [PROFILES[name] for name in arguments.profiles]
    rows = [
        [profile.describe() if number == 0 else "", name, *_cells(outcomes[profile.name, name])]
        for profile in profiles
        for number, name in enumerate(arguments.systems)
    ]
    publish(
        "Networks",
        [
            *("network", "server", "added delay p50, ms", "p95", "longest silence, ms", "on time", "correlation"),
            *("offer → connected, ms", "offer → first audio, ms"),
        ],
        rows,
        [
            f"{arguments.rounds} round(s) of {arguments.seconds:g} s, seeds from {arguments.seed}: median "
            "(least–most). Both directions are impaired; all servers are called at the same time, with the same seed.",
            "Added delay: packet sent to packet received, for the same sound, less the network's round trip. Silence "
            "and on time (within 60 ms of the call's own median) leave out what was lost on the way back, which is "
            "for the client to conceal.",
        ],
    )


async def _measure(arguments: argparse.Namespace) -> dict[tuple[str, str], list[Outcome | None]]:
    tape = make_tape(arguments.tape)
    outcomes: dict[tuple[str, str], list[Outcome | None]] = {}
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for name in arguments.systems:
            extra = arguments.server_args.split() if SYSTEMS[name].frame_s else []
            servers.append(await stack.enter_async_context(running(SYSTEMS[name], extra)))
        for number in range(arguments.rounds):
            for name in arguments.profiles:
                print(f"round {number + 1}: {name}", file=sys.stderr)
                seed = arguments.seed + number
                calls = (_call(server, PROFILES[name], seed, tape, arguments.seconds) for server in servers)
                for server, outcome in zip(servers, await asyncio.gather(*calls), strict=True):
                    outcomes.setdefault((name, server.system.name), []).append(outcome)
    return outcomes


async def _call(server: RunningServer, profile: Profile, seed: int, tape: Tape, seconds: float) -> Outcome | None:
    async with Relay(profile, seed) as relay:
        client = RtpClient(server.url, server.system.dialect, tape)
        try:
            await client.call(relay, _CALL_TIMEOUT_S)
            await asyncio.sleep(seconds)
        except TimeoutError:
            return None
        finally:
            await client.hang_up()
    return await asyncio.to_thread(_outcome, client, tape, profile)


def _outcome(client: RtpClient, tape: Tape, profile: Profile) -> Outcome:
    log = client.log
    verdict = judge(log, tape, since=log.connected_at + _SETTLE_S)
    found = verdict.delays.seconds
    p50, p95 = np.percentile(found, [50, 95]) if found.size else (float("nan"), float("nan"))
    network_s = (profile.up.delay_ms + profile.down.delay_ms) / 1000
    sound_at = first_sound_at(log)
    return Outcome(
        p50_s=float(p50) - network_s,
        p95_s=float(p95) - network_s,
        silence_s=verdict.longest_silence_s,
        on_time=verdict.on_time,
        likeness=verdict.likeness,
        connected_s=log.connected_at - log.offered_at,
        sound_s=None if sound_at is None else sound_at - log.offered_at,
    )


def _cells(outcomes: Sequence[Outcome | None]) -> list[str]:
    known = [outcome for outcome in outcomes if outcome is not None]
    if not known:
        return ["no connection", *["–"] * 6]
    failed = f", {len(outcomes) - len(known)} failed" if len(known) < len(outcomes) else ""
    return [
        spread([outcome.p50_s * 1000 for outcome in known]),
        spread([outcome.p95_s * 1000 for outcome in known]),
        spread([outcome.silence_s * 1000 for outcome in known]),
        spread([outcome.on_time * 100 for outcome in known], "%", 1),
        spread([outcome.likeness for outcome in known], "", 2),
        spread([outcome.connected_s * 1000 for outcome in known]) + failed,
        spread([None if outcome.sound_s is None else outcome.sound_s * 1000 for outcome in known]),
    ]
