"""A page whose media server, or media process, dies comes back by another one, and the model counts on."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from lab.browsers.chromium import give_mouth, say, spy_on, start_talking, visited_page, wait_for_events, wait_for_state
from lab.engine_process import key_file
from lab.media_processes import worker_of
from lab.pico.phrases import NUMBERS
from rtc_server.audio import FloatArray
from rtc_server.engine.model import BoolArray, RowOutput
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands
from tests.support.fake_models import CountingModel
from tests.support.resume_page import BACK_MS, SAME, TOLERATED, counted, session_of, talking, until_counted
from tests.support.script import spoken
from tests.support.served import served
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
    """The page comes back by itself and hears the model count on. What the killed process had from the model and had
    not sent may be missing, which on a busy machine is a number or two; none comes twice."""
    await expect(transcript).to_contain_text(NUMBERS[12], timeout=BACK_MS + 20_000)
    await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
    words = (await transcript.inner_text()).split()
    assert words[:7] == NUMBERS[1:8]
    assert words[7:] in (NUMBERS[8:13], NUMBERS[9:13], NUMBERS[10:13])
    await expect(page.locator("#announce")).to_have_text(f"Connected again. {SAME}")


class _PausingModel(CountingModel):
    """Remembers when it was stepped: after its server's death not until another one has the page's microphone."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self._stepped_at: list[float] = []

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        if active.any():
            self._stepped_at.append(time.monotonic())
        return super().step(pcm, active)

    def said_before_the_longest_pause(self) -> int:
        pauses = [after - before for before, after in itertools.pairwise(self._stepped_at)]
        return 1 + pauses.index(max(pauses))


async def test_its_media_server_is_killed(browser: Browser, tmp_path: Path) -> None:
    """Another one that shares the engine takes the page in, and what the page has next is what the model says next: it
    stands still until it is heard again. What it had said, and the server that died had not passed on, is lost."""
    need_commands("chromium")
    model = _PausingModel(1)
    with served(model=model) as engine:
        key = str(key_file(tmp_path))
        options = ("--stt", "none", "--engine-at", f"dialogue={engine.address}", "--cluster-key", key)
        async with server_process(*options) as first, server_process(*options) as second:
            for server in (first, second):
                await server.wait_ready()
            near = [server.url.removeprefix("http://") for server in (first, second)]
            async with (
                forwarding("127.0.0.1:0", near) as port,
                talking(browser, f"http://localhost:{port}/") as page,
            ):
                await until_counted(page, 7)
                await first.kill()
                before = await counted(page)
                await until_counted(page, before[-1] + 10, timeout_ms=2 * BACK_MS)
                await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
                numbers = await counted(page)
                had = model.said_before_the_longest_pause()
                seen = sum(number <= had for number in numbers)
                assert before[-1] <= seen <= had
                assert numbers == [*range(1, seen + 1), *range(had + 1, numbers[-1] + 1)]
                await expect(page.locator("#announce")).to_have_text(f"Connected again. {SAME}")


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
