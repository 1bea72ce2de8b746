"""``python -m bench loss``: what a bad way to the server does to a call, and for how long.

The way back stays clean, so that everything measured is what the server made of what it got. All servers are
called at the same time, each through a relay of its own with the same seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from bench.analysis import Delays, Verdict, judge, settled_at
from bench.rtp_client import CallLog, RtpClient
from bench.systems import SYSTEMS
from bench.table import publish, spread
from bench.tape import Tape, make_tape
from lab.network.link import LinkSettings, Outage
from lab.network.profiles import Profile
from lab.network.relay import Relay
from lab.servers import RunningServer, running

HELP = "delay, gaps and recovery under loss, jitter, reordering, an outage, a drifting clock"

_CLEAN: Final = LinkSettings()
_SERIES_POINTS: Final = 10


@dataclass(frozen=True, slots=True)
class Scenario:
    """``lead`` before anything happens, ``trouble`` for ``trouble_s``, then ``lead`` again for ``tail_s``.

    ``drop``: packets to lose at the start of the trouble. ``drift_ppm``: by how much the client's clock is fast.
    """

    title: str
    trouble: LinkSettings
    trouble_s: float
    tail_s: float
    lead: LinkSettings = _CLEAN
    drop: int = 0
    drift_ppm: float = 0.0


_JITTER: Final = LinkSettings(delay_ms=30)
SCENARIOS: Final = {
    "one": Scenario("one lost packet", _CLEAN, 1, 11, drop=1),
    "loss5": Scenario(
        "5 % loss, 30 ± 30 ms jitter, 60 s",
        LinkSettings(loss=0.05, delay_ms=30, jitter_ms=30),
        60,
        4,
        lead=_JITTER,
    ),
    "loss20": Scenario("20 % loss for 5 s", LinkSettings(loss=0.2), 5, 15),
    "shuffle": Scenario(
        "10 % reordered by 60 ms, 10 % duplicated, 15 s", LinkSettings(reorder=0.1, duplicate=0.1), 15, 5
    ),
    "outage": Scenario("2 s outage", LinkSettings(outages=(Outage(0, 2),)), 2, 12),
    "drift+": Scenario("client's clock 200 ppm fast, 10 min", _CLEAN, 590, 4, drift_ppm=200),
    "drift-": Scenario("client's clock 200 ppm slow, 10 min", _CLEAN, 590, 4, drift_ppm=-200),
}
_DEFAULT: Final = ("one", "loss5", "loss20", "shuffle", "outage")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", nargs="+", choices=SCENARIOS, default=list(_DEFAULT), help="what happens")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="which servers")
    parser.add_argument("--rounds", type=int, default=1, help="times each, with seeds that follow each other")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--lead", type=float, default=6, help="clean seconds before the trouble")
    parser.add_argument("--together", action="store_true", help="all rows at the same time: for the long ones")
    parser.add_argument("--tape", choices=("warble", "speech"), default="speech", help="what the clients say")
    parser.add_argument("--server-args", default="", help="further arguments of this server, as one string")


@dataclass(frozen=True, slots=True)
class Outcome:
    """``clean_s``: delay before the trouble. ``during_s``: median and 95th percentile while it lasted.
    ``end_s``: in the last three seconds. ``settled_s``: from the end of the trouble; None if never."""

    clean_s: float
    during_s: tuple[float, float]
    end_s: float
    settled_s: float | None
    longest_gap_s: float
    on_time: float
    series_s: list[float]
    lost: bool


def run(arguments: argparse.Namespace) -> None:
    outcomes = asyncio.run(_measure(arguments))
    rows = [
        [SCENARIOS[row].title if number == 0 else "", name, *_cells(outcomes[row, name])]
        for row in arguments.rows
        for number, name in enumerate(arguments.systems)
    ]
    publish(
        "A bad way to the server",
        [
            *("what happens", "server", "delay before, ms", "delay during, p50", "p95", "at the end", "back to normal"),
            *("longest gap, ms", "on time", "delay over time, ms"),
        ],
        rows,
        [
            f"{arguments.rounds} round(s), seeds from {arguments.seed}: median (least–most). Only the way to the "
            "server is impaired. Delay: from packet sent to packet received, for the same sound, network included.",
            "Back to normal: seconds after the trouble's end from which on the delay is within 20 ms of before.",
            "Longest gap: in arriving packets, or of silence where something was said; from the trouble's start on. "
            "On time: share of the sound said from then on that came within 60 ms of the delay before.",
            f"Delay over time: medians of {_SERIES_POINTS} equal parts from the trouble's start to the end of the "
            "call, first round.",
        ],
    )


async def _measure(arguments: argparse.Namespace) -> dict[tuple[str, str], list[Outcome]]:
    tape = make_tape(arguments.tape)
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for name in arguments.systems:
            extra = arguments.server_args.split() if SYSTEMS[name].frame_s else []
            servers.append(await stack.enter_async_context(running(SYSTEMS[name], extra)))
        for number in range(arguments.rounds):
            groups = [arguments.rows] if arguments.together else [[row] for row in arguments.rows]
            for group in groups:
                print(f"round {number + 1}: {'; '.join(SCENARIOS[row].title for row in group)}", file=sys.stderr)
                pairs = [(row, server) for row in group for server in servers]
                calls = (_call(server, SCENARIOS[row], tape, arguments, number) for row, server in pairs)
                for (row, server), outcome in zip(pairs, await asyncio.gather(*calls), strict=True):
                    outcomes.setdefault((row, server.system.name), []).append(outcome)
    return outcomes


async def _call(
    server: RunningServer, scenario: Scenario, tape: Tape, arguments: argparse.Namespace, number: int
) -> Outcome:
    lead = Profile("lead", scenario.lead, _CLEAN)
    async with Relay(lead, arguments.seed + number) as relay:
        client = RtpClient(server.url, server.system.dialect, tape, scenario.drift_ppm)
        try:
            await client.call(relay)
            await asyncio.sleep(arguments.lead)
            began = time.monotonic()
            relay.up.drop_next(scenario.drop)
            relay.apply(Profile("trouble", scenario.trouble, _CLEAN))
            await asyncio.sleep(scenario.trouble_s)
            over = time.monotonic()
            relay.apply(lead)
            await asyncio.sleep(scenario.tail_s)
            lost = client.lost
        finally:
            await client.hang_up()
    return await asyncio.to_thread(_outcome, client.log, tape, arguments.lead, began, over, lost)


def _outcome(log: CallLog, tape: Tape, lead_s: float, began: float, over: float, lost: bool) -> Outcome:
    # The first seconds of a call, in which every server still finds its feet, are not what is compared with.
    before = judge(log, tape, since=began - lead_s / 2, until=began)
    clean_s = _median(before.delays.seconds)
    after: Verdict = judge(log, tape, since=began, reference_s=clean_s)
    found = after.delays
    during = found.seconds[found.at <= max(over, began + 1.0)]
    last = found.at[-1] if found.at.size else began
    return Outcome(
        clean_s=clean_s,
        during_s=(_median(during), float(np.percentile(during, 95)) if during.size else float("nan")),
        end_s=_median(found.seconds[found.at > last - 3.0]),
        settled_s=settled_at(found, over, clean_s),
        longest_gap_s=after.longest_gap_s,
        on_time=after.on_time,
        series_s=_series(found, began, last),
        lost=lost,
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _series(found: Delays, began: float, last: float) -> list[float]:
    edges = np.linspace(began, last, _SERIES_POINTS + 1)
    parts = (found.seconds[(found.at >= low) & (found.at < high)] for low, high in pairwise(edges))
    return [_median(part) for part in parts]


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    def ms(values: Sequence[float]) -> str:
        return spread([value * 1000 for value in values if not math.isnan(value)])

    settled = [outcome.settled_s for outcome in outcomes]
    never = sum(value is None for value in settled)
    back = spread(settled, "s", 1) if never < len(settled) else "never"
    if any(outcome.lost for outcome in outcomes):
        back = "call lost"
    elif 0 < never < len(settled):
        back += f", {never} of {len(settled)} never"
    return [
        ms([outcome.clean_s for outcome in outcomes]),
        ms([outcome.during_s[0] for outcome in outcomes]),
        ms([outcome.during_s[1] for outcome in outcomes]),
        ms([outcome.end_s for outcome in outcomes]),
        back,
        ms([outcome.longest_gap_s for outcome in outcomes]),
        spread([outcome.on_time * 100 for outcome in outcomes], "%", 1),
        " ".join("–" if math.isnan(value) else f"{value * 1000:.0f}" for value in outcomes[0].series_s),
    ]
