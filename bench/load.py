"""The load: some calls at once, in a process of its own, so that what they cost is not the server's.

The parent's end is :class:`Load`. The child reads one line of JSON (:class:`LoadSpec`), dials, writes ``ready``,
and when it is told to stop hangs up and writes what it has found.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import sys
import time
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import uvloop

from bench.analysis import LONGEST_DELAY_S, Delays, Said, assemble, first_sound_at, judge
from bench.clients import make_client
from bench.questions import answer_times, questions_tape
from bench.rtp_client import CallLog
from bench.tape import PACKET_S, Tape, make_tape


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """``way``, ``pieces``: see :func:`make_client`. ``warm_s``: how long all calls run before the measurement begins.
    ``tape``: a name of :func:`make_tape`. ``drift_ppm``: of the clients' clocks. ``questions``: if not 0, so
    many are said instead of the tape. ``longest_delay_s``: that is recognised; shorter than the tape."""

    url: str
    way: str
    sessions: int
    warm_s: float
    tape: str = "warble"
    pieces: int = 1
    drift_ppm: float = 0.0
    questions: int = 0
    longest_delay_s: float = LONGEST_DELAY_S


@dataclass(frozen=True, slots=True)
class LoadResult:
    """``p50_s`` and ``p99_s``: of the delays of all packets of all calls. Lists: one value for each call.

    ``minutes_s``: for each call the median delay of each minute from the beginning of the measurement. ``answers_s``:
    of all questions on the tape, see :func:`answer_times`.
    """

    p50_s: float
    p99_s: float
    offer_to_answer_s: list[float]
    offer_to_connected_s: list[float]
    offer_to_sound_s: list[float | None]
    longest_gap_s: float
    likeness: float
    client_cpu_share: float
    minutes_s: list[list[float]]
    answers_s: list[float | None]


class Load:
    """Calls that run from :meth:`start` to :meth:`stop`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, spec: LoadSpec) -> Self:
        """Returns when all calls are connected and warm. Raises RuntimeError if they do not come so far."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        load = cls(process)
        load._write(json.dumps(dataclasses.asdict(spec)))
        if await load._read() != "ready":
            await process.wait()
            raise RuntimeError("the load clients could not connect")
        return load

    async def stop(self) -> LoadResult:
        self._write("stop")
        result = LoadResult(**json.loads(await self._read()))
        await self._process.wait()
        return result

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _read(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()


async def _run(spec: LoadSpec) -> None:
    tape = questions_tape(spec.questions) if spec.questions else make_tape(spec.tape)
    clients = [make_client(spec.url, spec.way, tape, spec.pieces, spec.drift_ppm) for _ in range(spec.sessions)]
    spacing = random.Random(1)
    try:
        for client in clients:
            await client.call()
            # People do not speak in step: frames and packets of different calls must not fall together.
            await asyncio.sleep(spacing.uniform(0.05, 0.05 + PACKET_S * 4))
        await asyncio.sleep(spec.warm_s)
        since, cpu = time.monotonic(), time.process_time()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        until = time.monotonic()
        share = (time.process_time() - cpu) / (until - since)
    finally:
        await asyncio.gather(*(client.hang_up() for client in clients))
    result = _summarise([client.log for client in clients], tape, spec, (since, until), share / spec.sessions)
    print(json.dumps(dataclasses.asdict(result)), flush=True)


def _summarise(
    logs: list[CallLog], tape: Tape, spec: LoadSpec, stretch: tuple[float, float], cpu_share: float
) -> LoadResult:
    since, until = stretch
    verdicts = [judge(log, tape, since, until, longest_delay_s=spec.longest_delay_s) for log in logs]
    every = np.concatenate([verdict.delays.seconds for verdict in verdicts])
    p50, p99 = np.percentile(every, [50, 99]) if every.size else (float("nan"), float("nan"))
    return LoadResult(
        p50_s=float(p50),
        p99_s=float(p99),
        offer_to_answer_s=[log.answered_at - log.offered_at for log in logs],
        offer_to_connected_s=[log.connected_at - log.offered_at for log in logs],
        offer_to_sound_s=[_since_offer(log, first_sound_at(log)) for log in logs],
        longest_gap_s=max(verdict.longest_gap_s for verdict in verdicts),
        likeness=float(np.median([verdict.likeness for verdict in verdicts])),
        client_cpu_share=cpu_share,
        minutes_s=[_by_minute(verdict.delays, since) for verdict in verdicts],
        answers_s=[answer for log in logs for answer in _answers(log, tape)],
    )


def _by_minute(delays: Delays, since: float) -> list[float]:
    minute = ((delays.at - since) // 60).astype(int)
    return [float(np.median(delays.seconds[minute == number])) for number in np.unique(minute)]


def _answers(log: CallLog, tape: Tape) -> list[float | None]:
    return answer_times(Said(tape, log.sent), assemble(log.arrivals, log.decoder), tape.marks) if tape.marks else []


def _since_offer(log: CallLog, when: float | None) -> float | None:
    return None if when is None else when - log.offered_at


def main() -> None:
    spec: dict[str, Any] = json.loads(sys.stdin.readline())
    uvloop.run(_run(LoadSpec(**spec)))


if __name__ == "__main__":
    main()
