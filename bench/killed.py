"""``python -m bench killed``: a media process dies while a page talks in it. How soon is the page back, with what the
model remembers, and how soon does it hear something?"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from playwright.async_api import Page

from bench.table import TAIL, publish, tail
from lab.browsers.chromium import chromium, give_mouth, say, start_talking, visited_page
from lab.media_processes import media_processes, worker_of
from lab.pico.phrases import NUMBERS
from lab.program import Program, without_settings
from lab.speech import espeak
from lab.speech.spoken import Voice

HELP = "how soon a page is back whose media process was killed, and hears something again"

_UNTIL: Final = NUMBERS[5]
_SOON_S: Final = 30.0
_TRANSCRIPT: Final = "document.querySelector('[data-testid=transcript]').innerText"
_AUDIBLE: Final = "[data-testid=meter-voice]:not([aria-valuenow='0'])"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=6, help="processes that are killed")


@dataclass(slots=True)
class Times:
    """Seconds since the process was killed. ``noticed``: the page says that it connects again; ``back``: it is
    connected; ``heard``: the meter of the model's voice moves."""

    noticed: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    heard: list[float] = field(default_factory=list)


def run(arguments: argparse.Namespace) -> None:
    times = asyncio.run(_measure(arguments.rounds))
    rows = [("noticed by the page", times.noticed), ("connected again", times.back), ("sound again", times.heard)]
    publish(
        "A media process that is killed",
        ["since it was killed", *TAIL],
        [[name, *tail(values, "s", 2)] for name, values in rows],
        [
            f"{arguments.rounds} times: Pico counts aloud to a page in Chromium, in one of two media processes "
            "(`--workers 2`), and that process is killed with -9. The count goes on where it was each time, or the "
            "run fails."
        ],
    )


async def _measure(rounds: int) -> Times:
    times = Times()
    spoken = espeak.speak("count to twenty", Voice("en-us+m7", 160)).pcm
    async with _server() as (process, url), chromium() as browser:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            async with visited_page(browser, "about:blank", tolerate=["Failed to load resource"]) as page:
                await give_mouth(page)
                await page.goto(url)
                await start_talking(page)
                await say(page, spoken)
                await page.wait_for_function(f"() => {_TRANSCRIPT}.includes('{_UNTIL}')", timeout=_SOON_S * 1000)
                await _kill_and_wait(page, process, times)
    return times


async def _kill_and_wait(page: Page, process: Program, times: Times) -> None:
    session = str(await page.evaluate("window.__voice.sessionId"))
    victim = media_processes(process.process.pid)[worker_of(session)]
    before = len(str(await page.evaluate(_TRANSCRIPT)).split())
    victim.kill()
    killed_at = time.monotonic()
    state = "document.querySelector('[data-testid=state]').innerText"
    await page.wait_for_function(f"() => {state} === 'Reconnecting'", timeout=_SOON_S * 1000)
    times.noticed.append(time.monotonic() - killed_at)
    await page.wait_for_function(f"() => ['Listening', 'Speaking'].includes({state})", timeout=_SOON_S * 1000)
    times.back.append(time.monotonic() - killed_at)
    await page.wait_for_selector(_AUDIBLE, timeout=_SOON_S * 1000)
    times.heard.append(time.monotonic() - killed_at)
    await page.wait_for_function(f"() => {_TRANSCRIPT}.split(/\\s+/).length > {before}", timeout=_SOON_S * 1000)
    said = str(await page.evaluate(_TRANSCRIPT)).split()
    if said[0] != NUMBERS[1] or len(set(said)) < len(said):
        raise AssertionError(f"the model did not count on: {said}")


@contextlib.asynccontextmanager
async def _server() -> AsyncIterator[tuple[Program, str]]:
    options = ("--workers", "2", "--model", "pico", "--stt", "none", "--slots", "1", "--allow-slow", "--port", "0")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtc_server", "serve", *options, "--offers-per-minute", "10000"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE,
        env={**without_settings(), "PYTHONUNBUFFERED": "1"},
    )
    program = Program(process)
    try:
        found = await program.wait_said(r"(http://localhost:\d+)", 60)
        yield program, found[1]
    finally:
        await program.kill()
