"""The page under a path of its own, behind a real nginx: it loads, talks, trickles, ends, and asks for nothing else."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser

from lab.browsers.chromium import start_talking, visited_page, wait_for_events, wait_for_sessions
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server
from tests.support.nginx import PREFIX, nginx_before

pytestmark = IN_A_BROWSER


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("chromium", "nginx")


async def test_a_conversation_under_a_path(browser: Browser, tmp_path: Path) -> None:
    async with (
        running_server("--model", "echo") as server,
        nginx_before(server.port, tmp_path) as nginx,
        visited_page(browser, "about:blank") as page,
    ):
        asked: list[tuple[str, str]] = []
        page.on("request", lambda request: asked.append((request.method, urlsplit(request.url).path)))
        await page.goto(f"{nginx.url(PREFIX)}/?raw=1#here")
        await start_talking(page)
        await wait_for_events(page, "message", 3)
        await wait_for_sessions(server, 1)
        await page.get_by_test_id("start").click()
        await wait_for_sessions(server, 0)
        assert {path for _, path in asked if not path.startswith(f"{PREFIX}/")} == set()
        assert {("GET", f"{PREFIX}/api/config"), ("POST", f"{PREFIX}/api/offer")} <= set(asked)
        assert any(method == "PATCH" for method, _ in asked)
