"""A relay that refuses the page, or is not there: the page says so, and what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, Route, expect

from lab.browsers.chromium import (
    local_url,
    visited_page,
    wait_for_sessions,
)
from lab.network.coturn import Relay, running_relay
from rtc_server.turn.ice_servers import make_credentials
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server

pytestmark = [*IN_A_BROWSER, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    need_commands("turnserver", "chromium")
    with running_relay(tmp_path_factory.mktemp("relay"), tls=True) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [("expired", "relay_refused", "401"), ("wrong", "relay_refused", "401"), ("missing", "relay_missing", "relay")],
)
async def test_who_is_not_let_in_is_told(browser: Browser, relay: Relay, fault: str, code: str, said: str) -> None:
    """In the page, with what to do about it; no session is left behind."""
    options = [] if fault == "missing" else relay.server_options("udp")

    async def spoil(route: Route) -> None:
        response = await route.fetch()
        body = await response.json()
        secret, valid_s = {"expired": (relay.secret, -60), "wrong": ("not the secret", 600)}[fault]
        mine = make_credentials(secret, "somebody", int(time.time()) + valid_s)
        body["ice_servers"][0] |= {"username": mine.username, "credential": mine.password}
        await route.fulfill(response=response, body=json.dumps(body))

    async with (
        running_server("--model", "echo", *options) as server,
        visited_page(browser, "about:blank") as page,
    ):
        if fault != "missing":
            await page.route("**/api/config", spoil)
            await page.route("**/api/ice-servers", spoil)
        await page.goto(local_url(server, "?relay=1"))
        await page.get_by_test_id("start").click()
        message = page.get_by_test_id("message")
        await expect(message).to_have_attribute("data-code", code, timeout=20_000)
        await expect(message).to_contain_text(said)
        await wait_for_sessions(server, 0)
