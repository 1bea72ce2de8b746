"""Whatever keeps a conversation from starting: the page says it in words, says what to do, and offers another try."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import psutil
import pytest
from playwright.async_api import Browser, Page, Request, Route, expect

from lab.browsers.chromium import chromium, local_url, start_talking, visited_page, wait_for_sessions, wait_for_state
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, running_server
from tests.support.protocol_page import documented
from tests.support.server_process import ROOT

pytestmark = IN_A_BROWSER

RETRY_MS = 10_000
"""Longer than the server's longest Retry-After."""
# The browser's own note on a request that failed; what the page makes of it is what is tested.
FAILED_REQUEST = "Failed to load resource"

_REFUSING_MICROPHONE = """
navigator.mediaDevices.getUserMedia = () => {
  if (window.microphoneWorks) return new Promise(() => {});
  return Promise.reject(new DOMException('as a test wants it', 'ERROR_NAME'));
};
"""

# What stands on the button of the message while neither it nor the other one may be pressed.
_NOTE_WAITS = """
() => {
  window.waits = [];
  const [retry, start] = ['retry', 'start'].map((name) => document.querySelector(`[data-testid=${name}]`));
  const look = () => { if (retry.disabled && start.ariaDisabled === 'true') waits.push(retry.textContent); };
  new MutationObserver(look).observe(document.body, { subtree: true, attributes: true, childList: true });
}
"""


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("chromium")


async def expect_message(page: Page, code: str, *words: str) -> None:
    """The message at the top is the one for ``code``, and holds ``words``."""
    message = page.get_by_test_id("message")
    await expect(message).to_have_attribute("data-code", code)
    await expect(message).to_be_visible()
    for word in words:
        await expect(message).to_contain_text(word, ignore_case=True)
    await expect(message.get_by_role("alert")).to_be_visible()


async def refused(page: Page, code: str, *words: str) -> None:
    """Start, and fail in the way that ``code`` names: nothing is left open, and it can be started again."""
    await page.get_by_test_id("start").click()
    await wait_for_state(page, "ended")
    await expect_message(page, code, *words)
    await expect(page.get_by_test_id("start")).to_have_text("Start talking")
    await expect(page.get_by_test_id("mute")).to_be_disabled()
    assert await page.evaluate("window.__voice.pc") is None


async def try_again(page: Page) -> None:
    """The button of the message, as soon as it may be pressed; then a conversation runs and the message is gone."""
    retry = page.get_by_test_id("retry")
    await expect(retry).to_be_visible()
    await retry.click(timeout=RETRY_MS)
    await wait_for_state(page, "listening", "speaking")
    await expect(page.get_by_test_id("message")).to_be_hidden()


def refusal(status: int, code: str, message: str, *, retryable: bool, **headers: str) -> dict[str, Any]:
    """An error of docs/protocol.md, section 1."""
    body = {"error": {"code": code, "message": message, "retryable": retryable}}
    return {"status": status, "json": body, "headers": headers}


async def answer_offers(page: Page, **answer: Any) -> None:
    """Answer every offer of the page in the server's place."""

    async def fulfil(route: Route) -> None:
        await route.fulfill(**answer)

    await page.route("**/api/offer", fulfil)


async def test_a_full_server_takes_the_page_as_soon_as_somebody_leaves(browser: Browser) -> None:
    async with (
        running_server("--model", "echo", "--echo-slots", "1") as server,
        visited_page(browser, local_url(server)) as first,
        visited_page(browser, local_url(server), tolerate=[FAILED_REQUEST]) as second,
    ):
        await start_talking(first)
        await second.evaluate(_NOTE_WAITS)
        await refused(second, "server_full", "All places are taken", "as soon as another caller leaves")
        # The server asked for some seconds of peace: both ways to start again wait, and say for how long.
        waits = await second.evaluate("waits")
        assert waits
        assert [said for said in waits if not re.fullmatch(r"Try again in \d+ s", said)] == []
        await first.get_by_test_id("start").click()
        await wait_for_state(first, "ended")
        await try_again(second)
        await wait_for_sessions(server, 1)


async def test_a_model_that_falls_silent_and_goes_on(browser: Browser) -> None:
    """The message comes within seconds, the conversation stays, and the message goes by itself."""
    async with (
        running_server("--model", "echo", "--engine", "process") as server,
        visited_page(browser, local_url(server)) as page,
    ):
        await start_talking(page)
        engine = psutil.Process(server.engines["echo"].pid)
        engine.suspend()
        await expect_message(page, "engine_stalled", "does not answer", "wait")
        engine.resume()
        await expect(page.get_by_test_id("message")).to_be_hidden()
        await wait_for_state(page, "listening", "speaking")


async def test_a_model_that_dies_and_the_next_one_that_knows_nothing(browser: Browser) -> None:
    """The page says both, by itself, and stays in its conversation: the same connection, the same session."""
    async with (
        running_server("--model", "echo", "--engine", "process") as server,
        visited_page(browser, local_url(server)) as page,
    ):
        await start_talking(page)
        (session,) = server.registry
        psutil.Process(server.engines["echo"].pid).kill()
        await expect_message(page, "engine_failed", "stopped working", "forgotten", "by itself")
        await expect(page.get_by_test_id("retry")).to_be_hidden()
        await expect(page.get_by_test_id("message")).to_be_hidden(timeout=20_000)
        await expect(page.get_by_test_id("state-detail")).to_contain_text("has forgotten what was said")
        await wait_for_state(page, "speaking")
        assert list(server.registry) == [session]
        assert server.metrics.sessions_resumed.labels("echo")._value.get() == 0


async def test_a_model_that_is_not_ready(browser: Browser, server: Server) -> None:
    async with (
        visited_page(browser, local_url(server), tolerate=[FAILED_REQUEST]) as page,
    ):
        not_ready = refusal(503, "engine_unavailable", "Not yet.", retryable=True, **{"Retry-After": "1"})
        await answer_offers(page, **not_ready)
        await refused(page, "engine_unavailable", "not ready", "loading")
        await page.unroute("**/api/offer")
        await try_again(page)


async def test_the_page_waits_for_a_model_that_loads(browser: Browser, server: Server) -> None:
    """It asks again by itself; until then the model's line claims nothing it cannot know."""
    loading = True

    async def as_while_loading(route: Route) -> None:
        response = await route.fetch()
        config = await response.json()
        if loading:
            config |= {"services": [{"name": "echo", "ready": False}], "notice": None}
        await route.fulfill(response=response, json=config)

    async with visited_page(browser, "about:blank") as page:
        await page.clock.install()
        await page.route("**/api/config", as_while_loading)
        await page.goto(local_url(server))
        await expect(page.get_by_test_id("model")).to_have_text("echo (loading)")
        loading = False
        await page.clock.fast_forward(6_000)
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
        await expect(page.get_by_test_id("notice")).to_be_visible()


async def test_a_server_that_cannot_be_reached(browser: Browser, server: Server) -> None:
    """When the page opens, and when a conversation starts."""
    async with (
        visited_page(browser, "about:blank", tolerate=[FAILED_REQUEST]) as page,
    ):
        await page.route("**/api/*", lambda route: route.abort())
        await page.goto(local_url(server))
        await expect_message(page, "unreachable", "does not answer")
        await page.unroute("**/api/*")
        await page.get_by_test_id("retry").click()
        await expect(page.get_by_test_id("message")).to_be_hidden()
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")

        await page.route("**/api/offer", lambda route: route.abort())
        await refused(page, "unreachable", "does not answer", "try again")
        await page.unroute("**/api/offer")
        await try_again(page)


async def test_a_device_without_a_network(browser: Browser, server: Server) -> None:
    async with (
        visited_page(browser, local_url(server), tolerate=[FAILED_REQUEST]) as page,
    ):
        await page.context.set_offline(True)
        await refused(page, "offline", "You are offline", "Wi-Fi")
        await page.context.set_offline(False)
        await try_again(page)


async def test_a_proxy_that_answers_in_the_servers_place(browser: Browser, server: Server) -> None:
    async with (
        visited_page(browser, local_url(server), tolerate=[FAILED_REQUEST]) as page,
    ):
        await answer_offers(page, status=502, content_type="text/html", body="<h1>Bad gateway</h1>")
        await refused(page, "bad_gateway", "in front of the server")
        await page.unroute("**/api/offer")
        await try_again(page)


async def test_a_refusal_that_the_page_does_not_know(browser: Browser, server: Server) -> None:
    """A newer server has codes that this page has never heard of: its own sentence is shown, as text."""
    async with (
        visited_page(browser, local_url(server), tolerate=[FAILED_REQUEST]) as page,
    ):
        sentence = "It is <b>Sunday</b>."
        await answer_offers(page, **refusal(403, "sunday", sentence, retryable=False))
        await refused(page, "sunday", "The server refused", sentence)
        await answer_offers(page, **refusal(403, "monday", "", retryable=False))
        await refused(page, "monday", "“monday”")
        await page.unroute("**/api/offer")
        await try_again(page)


async def test_a_service_that_is_not_here(browser: Browser, server: Server) -> None:
    """Said when the page opens, and by the server to a client that tries all the same; trying again cannot help."""
    async with (
        visited_page(browser, local_url(server, "?service=nowhere"), tolerate=[FAILED_REQUEST]) as page,
    ):
        await expect(page.get_by_test_id("model")).to_have_text("not offered here")
        await expect_message(page, "unknown_service", "does not offer that", "?service=")
        await refused(page, "unknown_service", "does not offer that")
        await expect(page.get_by_test_id("retry")).to_be_hidden()
        await page.get_by_test_id("dismiss").click()
        await expect(page.get_by_test_id("message")).to_be_hidden()


async def test_no_way_through_for_the_audio(browser: Browser) -> None:
    """Every candidate, of both sides, leads to a port where no one is: the message names what is in the way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))

        def lead_astray(sdp: str) -> str:
            candidate = re.compile(r"^(a=candidate:\S+ \d+ \w+ \d+) \S+ \d+", re.MULTILINE)
            return candidate.sub(rf"\1 127.0.0.1 {nobody.getsockname()[1]}", sdp)

        async def astray(route: Route, request: Request) -> None:
            offer = request.post_data_json
            offer["sdp"] = lead_astray(offer["sdp"])
            response = await route.fetch(post_data=json.dumps(offer))
            answer = await response.json()
            answer["sdp"] = lead_astray(answer["sdp"])
            await route.fulfill(response=response, json=answer)

        async def without_candidates(route: Route, request: Request) -> None:
            if request.method == "PATCH":
                await route.fulfill(status=204)
            else:
                await route.continue_()

        async with (
            running_server("--model", "echo", "--connect-timeout-s", "2") as server,
            visited_page(browser, local_url(server), tolerate=[FAILED_REQUEST]) as page,
        ):
            await page.route("**/api/offer", astray)
            await page.route("**/api/sessions/*", without_candidates)
            await refused(page, "no_route", "No way through", "UDP", "TURN", "firewall")
            # What only the server knows.
            await expect(page.get_by_test_id("message")).to_contain_text("The server adds: ")
            await expect(page.get_by_test_id("message")).to_contain_text("--public-ip")
            await wait_for_sessions(server, 0)
            await page.unroute("**/api/offer")
            await try_again(page)


async def test_an_address_that_is_not_secure(browser: Browser) -> None:
    """Browsers keep the microphone from it. The page says so before the user presses a thing, and names ways out."""
    addresses = [
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    if not addresses:
        pytest.skip("needs a network interface with an IPv4 address that is not loopback: an insecure origin")
    async with (
        running_server("--model", "echo", "--host", "0.0.0.0", "--allow-anonymous") as server,
        # The browser's note that one of the server's headers has no effect on such an origin.
        visited_page(browser, f"http://{addresses[0]}:{server.port}/", tolerate=["Cross-Origin-Opener-Policy"]) as page,
    ):
        ways_out = ("https://", f"http://localhost:{server.port}", "SSH tunnel")
        await expect_message(page, "insecure_origin", "not secure enough", *ways_out)
        await expect(page.get_by_test_id("retry")).to_be_hidden()
        await refused(page, "insecure_origin", *ways_out)
        await expect(page.get_by_test_id("retry")).to_be_hidden()


def test_every_code_of_the_protocol_has_words_of_its_own() -> None:
    """What the server may say, in an error or as the reason of an end, is said in a person's words."""
    table = (ROOT / "static" / "connection" / "errors.js").read_text()
    reasons = re.search(r"^`reason` of `disconnected`:(.*)$", (ROOT / "docs" / "protocol.md").read_text(), re.MULTILINE)
    assert reasons is not None
    codes = {*documented("## 4. Error codes"), *re.findall(r"`([a-z_]+)`", reasons[1])} - {"bye"}
    assert len(codes) > 30
    assert {code for code in codes if not re.search(rf"^ +{code}: {{|'{code}'", table, re.MULTILINE)} == set()


async def test_a_microphone_that_is_refused_and_then_allowed(server: Server) -> None:
    async with chromium(allow_microphone=False) as browser, visited_page(browser, local_url(server)) as page:
        await refused(page, "microphone_denied", "blocked", "site settings")
        await page.context.grant_permissions(["microphone"])
        await try_again(page)


@pytest.mark.parametrize(
    ("error_name", "code", "words"),
    [
        ("NotFoundError", "microphone_missing", ["No microphone found", "Connect one"]),
        ("NotReadableError", "microphone_busy", ["busy", "another program"]),
        ("TypeError", "microphone_failed", ["could not be opened", "reconnect"]),
    ],
)
async def test_a_microphone_that_cannot_be_opened(
    browser: Browser, server: Server, error_name: str, code: str, words: list[str]
) -> None:
    """The server is not asked for a place that could not be used; the button tries again."""
    async with visited_page(browser, "about:blank") as page:
        await page.add_init_script(_REFUSING_MICROPHONE.replace("ERROR_NAME", error_name))
        await page.goto(local_url(server))
        offers: list[str] = []
        page.on("request", lambda request: offers.append(request.url) if request.method == "POST" else None)
        await refused(page, code, *words)
        assert not offers
        await page.evaluate("window.microphoneWorks = true")
        await page.get_by_test_id("retry").press("Enter")
        await wait_for_state(page, "connecting")
        await expect(page.get_by_test_id("start")).to_be_focused()
        await expect(page.get_by_test_id("message")).to_be_hidden()
        await expect(page.get_by_test_id("state-detail")).to_contain_text("Opening the microphone")
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
