"""A page whose media server, or media process, dies comes back by another one, and the model counts on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from lab.browsers.chromium import give_mouth, say, spy_on, start_talking, visited_page, wait_for_events, wait_for_state
from lab.engine_process import engine_process, key_file
from lab.media_processes import worker_of
from lab.pico.phrases import NUMBERS
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands
from tests.support.resume_page import BACK_MS, SAME, TOLERATED, session_of
from tests.support.script import spoken
from tests.support.server_process import server_process
from tests.support.tcp_forward import forwarding
from tests.support.workers import media_processes

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]


async def count_until_seven(page: Page, url: str) -> Locator:
    """The page's user asks the model to count; what it writes."""
    await spy_on(page)
    await give_mouth(page)
    await page.goto(url)
    await start_talking(page)
    await wait_for_events(page, "message")
    await say(page, spoken("count to twelve"))
    transcript = page.get_by_test_id("transcript").locator("p").last
    await expect(transcript).to_contain_text(NUMBERS[7], timeout=20_000)
    return transcript


async def expect_the_rest(page: Page, transcript: Locator) -> None:
    """The page comes back by itself and hears the model count on. A word that the model said while nothing could hear
    it may be missing, where the count was cut; none comes twice."""
    await expect(transcript).to_contain_text(NUMBERS[12], timeout=BACK_MS + 20_000)
    await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
    words = (await transcript.inner_text()).split()
    assert words[:7] == NUMBERS[1:8]
    assert words[7:] in (NUMBERS[8:13], NUMBERS[9:13], NUMBERS[10:13])
    await expect(page.locator("#announce")).to_have_text(f"Connected again. {SAME}")


async def test_its_media_server_is_killed(browser: Browser, tmp_path: Path) -> None:
    """At "seven", without a word: another one that shares the engine takes it in."""
    need_commands("chromium", "espeak-ng")
    async with engine_process(tmp_path, "--model", "pico", "--slots", "1", "--allow-slow") as engine:
        await engine.wait_ready()
        key = str(key_file(tmp_path))
        options = ("--stt", "none", "--engine-at", f"dialogue={engine.address}", "--cluster-key", key)
        async with server_process(*options) as first, server_process(*options) as second:
            for server in (first, second):
                await server.wait_ready()
            near = [server.url.removeprefix("http://") for server in (first, second)]
            async with (
                forwarding("127.0.0.1:0", near) as port,
                visited_page(browser, "about:blank", tolerate=TOLERATED) as page,
            ):
                transcript = await count_until_seven(page, f"http://localhost:{port}/")
                first.signal(signal.SIGKILL)
                await expect_the_rest(page, transcript)


async def test_its_process_is_killed(browser: Browser) -> None:
    """Of a server that has two: at the same address the other one, or the one that takes the place, goes on."""
    need_commands("chromium", "espeak-ng")
    options = ("--workers", "2", "--model", "pico", "--stt", "none", "--slots", "1", "--allow-slow")
    async with server_process(*options) as server, visited_page(browser, "about:blank", tolerate=TOLERATED) as page:
        await server.wait_ready(60)
        transcript = await count_until_seven(page, server.url)
        session = await session_of(page)
        media_processes(server)[worker_of(session)].kill()
        await expect_the_rest(page, transcript)
        assert await session_of(page) != session
