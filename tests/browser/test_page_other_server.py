"""A page whose media server dies comes back by another one, and the model goes on where it was."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from lab.browsers.chromium import give_mouth, say, spy_on, start_talking, visited_page, wait_for_events, wait_for_state
from lab.engine_process import engine_process, key_file
from lab.pico.phrases import NUMBERS
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands
from tests.support.resume_page import BACK_MS, SAME, TOLERATED
from tests.support.script import spoken
from tests.support.server_process import server_process
from tests.support.tcp_forward import forwarding

pytestmark = [*IN_A_BROWSER, pytest.mark.alone]


async def test_the_model_counts_on_when_its_media_server_is_killed(browser: Browser, tmp_path: Path) -> None:
    """At "seven", without a word; the page comes back by itself and hears "eight"."""
    need_commands("chromium", "espeak-ng")
    async with engine_process(tmp_path, "--model", "pico", "--slots", "1", "--allow-slow") as engine:
        await engine.wait_ready()
        options = (
            "--stt",
            "none",
            "--engine-at",
            f"dialogue={engine.address}",
            "--cluster-key",
            str(key_file(tmp_path)),
        )
        async with server_process(*options) as first, server_process(*options) as second:
            for server in (first, second):
                await server.wait_ready()
            near = [server.url.removeprefix("http://") for server in (first, second)]
            async with (
                forwarding("127.0.0.1:0", near) as port,
                visited_page(browser, "about:blank", tolerate=TOLERATED) as page,
            ):
                await spy_on(page)
                await give_mouth(page)
                await page.goto(f"http://localhost:{port}/")
                await start_talking(page)
                await wait_for_events(page, "message")
                await say(page, spoken("count to twelve"))
                transcript = page.get_by_test_id("transcript").locator("p")
                await expect(transcript.last).to_contain_text(NUMBERS[7], timeout=20_000)
                first.signal(signal.SIGKILL)
                await expect(transcript.last).to_contain_text(NUMBERS[12], timeout=BACK_MS + 20_000)
                await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
                assert (await transcript.last.inner_text()).split() == NUMBERS[1:13]
                await expect(page.locator("#announce")).to_have_text(f"Connected again. {SAME}")
