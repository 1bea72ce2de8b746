"""``python -m bench captions``: what the user's words, written beside a dialogue, cost the dialogue."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from bench.doors import OFFER, answering, ask
from bench.scraped import samples_of
from bench.table import publish, spread

HELP = "frames, steps and CPU of a dialogue with Pico, without captions and with them"

_STT: Final = ("--stt", "pico-stt", "--stt-slots", "1")
"""A later option wins: the transcribing model is loaded either way."""
_SETTINGS: Final = ("off", "on")
_DIALOGUE: Final = "dialogue"
_FRAME_S: Final = 0.08

Figures = dict[tuple[str, str, str], float]
"""Of ``/metrics``: by sample, service and upper bound."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--questions", type=int, default=8, help="each time")
    parser.add_argument("--rounds", type=int, default=3, help="times each")


@dataclass(frozen=True, slots=True)
class Round:
    """``frame_s``, ``step_s``: means, from the media plane through the engine and back, and in the model alone.
    ``late``: the share of frames that took longer than 80 ms. ``server``, ``all``: shares of a core, of the server's
    process and of its engines with it. ``words``: that were written down."""

    frame_s: float
    step_s: float
    late: float
    server: float
    all: float
    words: float
    answers_s: list[float | None]


def run(arguments: argparse.Namespace) -> None:
    rounds = asyncio.run(_measure(arguments))
    publish(
        "Captions",
        ["", *(f"--captions {setting}" for setting in _SETTINGS)],
        [[label, *(cell(rounds[setting]) for setting in _SETTINGS)] for label, cell in _ROWS],
        [
            f"One call by /api/offer, {arguments.questions} questions to Pico; {arguments.rounds} rounds, a server of "
            "its own for each, in turn: median (least–most). Pico-STT is loaded in both, and idle without captions."
        ],
    )


async def _measure(arguments: argparse.Namespace) -> dict[str, list[Round]]:
    rounds: dict[str, list[Round]] = {setting: [] for setting in _SETTINGS}
    for number in range(arguments.rounds):
        print(f"round {number + 1}", file=sys.stderr)
        for setting in _SETTINGS[:: 1 if number % 2 == 0 else -1]:
            rounds[setting].append(await _one(setting, arguments.questions))
    return rounds


async def _one(setting: str, questions: int) -> Round:
    async with answering(*_STT, "--captions", setting) as server, aiohttp.ClientSession() as http:
        before = await _figures(http, server.url)
        began, cpu_s, all_s = time.monotonic(), server.cpu_s(children=False), server.cpu_s()
        answers_s = await ask(server.url, OFFER, questions)
        lasted_s = time.monotonic() - began
        cpu_s, all_s = server.cpu_s(children=False) - cpu_s, server.cpu_s() - all_s
        after = await _figures(http, server.url)

    def grown(sample: str, service: str = _DIALOGUE, bound: str = "") -> float:
        return after.get((sample, service, bound), 0.0) - before.get((sample, service, bound), 0.0)

    frames = grown("rtc_frame_seconds_count")
    return Round(
        frame_s=grown("rtc_frame_seconds_sum") / frames,
        step_s=grown("rtc_step_seconds_sum") / grown("rtc_step_seconds_count"),
        late=1 - grown("rtc_frame_seconds_bucket", bound=str(_FRAME_S)) / frames,
        server=cpu_s / lasted_s,
        all=all_s / lasted_s,
        words=grown("rtc_caption_words_total", service=""),
        answers_s=answers_s,
    )


async def _figures(http: aiohttp.ClientSession, url: str) -> Figures:
    return {
        (sample.name, sample.labels.get("service", ""), sample.labels.get("le", "")): sample.value
        for sample in await samples_of(http, url)
    }


def _each(value: Callable[[Round], float], unit: str, factor: float, digits: int = 1) -> Callable[[list[Round]], str]:
    return lambda rounds: spread([value(one) * factor for one in rounds], unit, digits)


def _answers(rounds: list[Round]) -> str:
    return spread([answer * 1000 for one in rounds for answer in one.answers_s if answer is not None], "ms")


_ROWS: Sequence[tuple[str, Callable[[list[Round]], str]]] = (
    ("a frame of the dialogue, there and back, mean", _each(lambda one: one.frame_s, "ms", 1000)),
    ("of it the model's step, mean", _each(lambda one: one.step_s, "ms", 1000)),
    ("frames later than 80 ms", _each(lambda one: one.late, "%", 100)),
    ("question → answer", _answers),
    ("CPU of the server's process", _each(lambda one: one.server, "%", 100)),
    ("CPU with its engines", _each(lambda one: one.all, "%", 100)),
    ("words written down", _each(lambda one: one.words, "", 1, 0)),
)
