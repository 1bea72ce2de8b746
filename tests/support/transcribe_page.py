"""The view that transcribes, and a speaker in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from playwright.async_api import Browser, Locator, Page, expect

from lab.browsers.chromium import (
    hand_over,
    local_url,
    spy_on,
    visited_page,
    wait_for_state,
)
from lab.stenographer import Stenographer
from rtc_server.app import Server
from rtc_server.config import Settings, parse
from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from rtc_server.services import make_engines
from tests.conftest import UNLIMITED

# A tone would be taken for noise, and removed, unless the browser leaves the microphone as it is.
RAW = "?raw=1&view=transcribe"


WORDS = "[data-testid=captions] .word"


SENTENCES = (
    "Good morning everybody. Before we begin, a word about last week.",
    "The trial with the new microphones went better than any of us had hoped: nobody complained about echo, "
    "and the two people who joined from a train could follow everything.",
    "There is one thing left to decide. Do we keep the recordings, or only what was written down?",
    "I would keep the words and nothing else. They are easier to search, and nobody has to listen to me twice.",
    "Agreed.",
    "Then let us look at the numbers for November",
)


@contextlib.asynccontextmanager
async def writing_server(*arguments: str) -> AsyncIterator[Server]:
    """It writes the pitch of tones; and there is the echo to talk with."""
    options = ["--port", "0", "--model", "echo", "--engine", "thread", "--vad", "off", *UNLIMITED]

    def engines(settings: Settings, metrics: Metrics) -> dict[str, Engine]:
        stenographer = EngineClient("transcribe", lambda: LocalLink(lambda: Stenographer(4)), metrics)
        return {**make_engines(settings, metrics), "transcribe": stenographer}

    server = Server(parse([*options, *arguments], environment={}), make_engines=engines)
    await server.start()
    try:
        await server.wait_ready()
        yield server
    finally:
        await server.stop(0.0)


@contextlib.asynccontextmanager
async def opened(browser: Browser, url: str, *, tolerate: Sequence[str] = (), **context: Any) -> AsyncIterator[Page]:
    """The view, with the spy in it, and its own policy kept."""
    async with visited_page(browser, "about:blank", tolerate=tolerate, **context) as page:
        await spy_on(page)
        await page.goto(url)
        await expect(page.get_by_test_id("captions")).to_be_visible()
        yield page
        if not page.is_closed():
            assert await page.evaluate("spied.violations") == []


class Speaker:
    """Says words in the server's place, each 400 ms after the one before."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._seq = 1_000
        self.at_ms = 1_000

    def _message(self, kind: str, **fields: Any) -> str:
        self._seq += 1
        return json.dumps({"type": kind, "time_ms": self.at_ms, "seq": self._seq, **fields})

    async def say(self, text: str, *, end: bool = True) -> None:
        """``end``: of the turn."""
        await self.say_all([text], end=end)

    async def say_all(self, texts: Sequence[str], *, end: bool = True) -> None:
        messages = []
        for text in texts:
            messages.append(self._message("speech-started", at_ms=self.at_ms))
            for word in text.split():
                messages.append(self._message("word", text=word, start_ms=self.at_ms, end_ms=self.at_ms + 300))
                self.at_ms += 400
            if end:
                messages.append(self._message("speech-ended", at_ms=self.at_ms))
                messages.append(self._message("turn-ended", at_ms=self.at_ms))
        await hand_over(self._page, *messages)


@contextlib.asynccontextmanager
async def listening(browser: Browser, server: Server, **context: Any) -> AsyncIterator[tuple[Page, Speaker]]:
    """A session in which only the :class:`Speaker` talks: the microphone is muted."""
    async with opened(browser, local_url(server, RAW), **context) as page:
        await page.get_by_test_id("start").click()
        await page.get_by_test_id("mute").click()
        await wait_for_state(page, "listening")
        await page.wait_for_function("() => window.__voice.events.some(({ detail }) => detail?.type === 'connected')")
        yield page, Speaker(page)


async def wait_for_words(page: Page, count: int) -> None:
    await page.wait_for_function(
        "([words, count]) => document.querySelectorAll(words).length >= count", arg=[WORDS, count], timeout=20_000
    )


def paragraphs(page: Page) -> Locator:
    return page.get_by_test_id("captions").locator(".paragraph")


async def texts(page: Page) -> list[str]:
    """Of each paragraph its words."""
    found: list[str] = await paragraphs(page).evaluate_all("(all) => all.map((one) => one.lastElementChild.innerText)")
    return found


async def downloaded(page: Page, form: str) -> tuple[str, str]:
    """Its name and its text."""
    await page.get_by_test_id("captions-format").select_option(form)
    async with page.expect_download() as begun:
        await page.get_by_test_id("captions-download").click()
    download = await begun.value
    path = await download.path()
    return download.suggested_filename, await asyncio.to_thread(path.read_text, encoding="utf-8")
