"""Both sides of a conversation in the page's transcript: told apart, in the order in which they were said, and for the
user to switch off."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, ViewportSize, expect

from lab.browsers.chromium import (
    call_of,
    hand_over,
    local_url,
    screenshot,
    spy_on,
    start_talking,
    visited_page,
    wait_for_state,
)
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.sessions.transport import Transport
from tests.browser.conftest import IN_A_BROWSER
from tests.support.looks import CONTRAST, CONTRASTS, DESKTOP, PHONE, TOO_SMALL, TOO_WIDE, TOUCH_PX

pytestmark = IN_A_BROWSER


LINES = "[data-testid=transcript] p"


def text(at_ms: int, delta: str) -> dict[str, Any]:
    return {"type": "text", "time_ms": at_ms + 90, "at_ms": at_ms, "delta": delta}


def word(start_ms: int, said: str) -> dict[str, Any]:
    return {"type": "word", "time_ms": start_ms + 900, "text": said, "start_ms": start_ms, "end_ms": start_ms + 240}


def captions(state: str, reason: str | None = None) -> dict[str, Any]:
    return {"type": "captions", "time_ms": 1, "state": state, **({"reason": reason} if reason else {})}


async def tell(page: Page, *events: dict[str, Any]) -> None:
    """In the server's place."""
    await hand_over(page, *(json.dumps(event) for event in events))


async def captioned(page: Page, server: Server) -> None:
    """The page of a server that says that it writes the user's words down."""

    async def with_captions(route: Route) -> None:
        response = await route.fetch()
        config = await response.json()
        config["services"][0] |= {"captions": True, "writes": True}
        await route.fulfill(response=response, json=config)

    await spy_on(page)
    await page.route("**/api/config", with_captions)
    await page.goto(local_url(server))
    await expect(page.get_by_test_id("write-mine")).to_be_visible()


def shown(lines: list[str]) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in lines]


async def lines(page: Page) -> list[str]:
    return shown(await page.locator(LINES).all_text_contents())


async def test_late_words_stand_where_they_were_said(browser: Browser, server: Server) -> None:
    async with visited_page(browser, "about:blank") as page:
        await captioned(page, server)
        await expect(page.locator("#words-title")).to_have_text("What was said")
        await start_talking(page)
        await tell(page, captions("on"), text(2000, " That"), text(2160, " is"), word(400, "what"), word(700, "is"))
        await tell(page, word(1000, "one"), text(2320, " seven."), word(6000, "thank"), word(6300, "you"))
        assert await lines(page) == ["You: what is one", "Model: That is seven.", "You: thank you"]
        titles = await page.locator(LINES).evaluate_all("(all) => all.map((one) => one.dataset.time ?? '')")
        assert [bool(title) for title in titles] == [True, False, False]
        # What users said is not read to them; what the model says is.
        spoken_to_them = await page.locator(LINES).evaluate_all("(all) => all.map((one) => one.ariaLive)")
        assert spoken_to_them == ["off", None, "off"]
        await tell(page, {"type": "state", "state": "listening", "reason": "reset", "time_ms": 9000})
        await tell(page, text(80, " Hello."), word(160, "<b>hi</b>"))
        assert (await lines(page))[3:] == ["Model: Hello.", "You: <b>hi</b>"]
        said = await page.evaluate("window.__voice.transcript")
        assert [shown(part.split("\n")) for part in said.split("\n\n")] == [
            ["You: what is one", "Model: That is seven.", "You: thank you"],
            ["Model: Hello.", "You: <b>hi</b>"],
        ]


async def test_whose_line_it_is_is_said_once(browser: Browser, server: Server) -> None:
    """Not again after each breath, but for those who select the text."""
    async with visited_page(browser, "about:blank") as page:
        await captioned(page, server)
        await start_talking(page)
        await tell(
            page, captions("on"), text(1000, " One."), text(3000, " Two."), word(5000, "stop"), word(7000, "please")
        )
        assert await lines(page) == ["Model: One.", "Model: Two.", "You: stop", "You: please"]
        who = await page.locator(f"{LINES} .who").evaluate_all("(all) => all.map((one) => one.checkVisibility())")
        assert who == [True, False, True, False]


async def test_the_user_is_told_why_their_words_are_missing(browser: Browser, server: Server) -> None:
    async with visited_page(browser, "about:blank") as page:
        await captioned(page, server)
        await start_talking(page)
        hint = page.get_by_test_id("no-captions")
        await expect(hint).to_be_hidden()
        for reason, why in {
            "server_full": "all places are taken by others",
            "overloaded": "the server is busy",
            "engine_unavailable": "the model that hears them is not ready",
            "news": "the server cannot do it",
        }.items():
            await tell(page, captions("off", reason))
            await expect(hint).to_have_text(
                f"Your words are not written down at the moment: {why}. The conversation goes on."
            )
        await tell(page, captions("on"))
        await expect(hint).to_be_hidden()
        await tell(page, captions("off", "overloaded"))
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(hint).to_be_hidden()


async def test_the_switch_holds_for_this_conversation_and_the_next(browser: Browser, server: Server) -> None:
    async with visited_page(browser, "about:blank") as page:
        await captioned(page, server)
        switch, title = page.get_by_test_id("write-mine"), page.locator("#words-title")
        await expect(switch).to_be_checked()
        async with page.expect_request("**/api/offer") as offered:
            await start_talking(page)
        assert (await offered.value).post_data_json["options"] == {"wait": True}
        session = await call_of(page, server)
        heard: list[str] = []

        def listen(transport: Transport, message: str | bytes) -> None:
            heard.append(str(message))

        session.on_message = listen  # type: ignore[method-assign]
        await switch.uncheck()
        await expect(title).to_have_text("What it says")
        await until(lambda: heard, "the message")
        assert json.loads(heard[0]) == {"type": "settings", "captions": False}
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await page.reload()
        await expect(switch).not_to_be_checked()
        async with page.expect_request("**/api/offer") as offered:
            await start_talking(page)
        assert (await offered.value).post_data_json["options"] == {"wait": True, "captions": False}


async def test_where_no_words_of_the_user_come_the_page_is_as_it_was(browser: Browser, server: Server) -> None:
    async with visited_page(browser, local_url(server)) as page:
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
        await expect(page.get_by_test_id("write-mine")).to_be_hidden()
        await expect(page.locator("#words-title")).to_have_text("What it says")


_LONG = (
    (400, "you", "what is three plus four"),
    (3200, "model", " That is seven."),
    (6000, "you", "count to twelve"),
    (8000, "model", " One, two, three, four, five, six."),
    (9000, "you", "stop"),
    (12_000, "you", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"),
    (
        15_000,
        "model",
        " I did not understand that. Try https://example.org/a/very/long/address/that/has/no/space/in/it",
    ),
)


async def crowded(browser: Browser, server: Server, page: Page) -> None:
    await captioned(page, server)
    await start_talking(page)
    await tell(page, captions("on"))
    for at_ms, side, said in _LONG:
        for number, each in enumerate(said.split() if side == "you" else [said]):
            at = at_ms + number * 250
            await tell(page, word(at, each) if side == "you" else text(at, each))
    await tell(page, captions("off", "overloaded"))
    await expect(page.get_by_test_id("no-captions")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "viewport"), [("phone", PHONE), ("desktop", DESKTOP)])
async def test_both_sides_look_right(
    browser: Browser, server: Server, name: str, viewport: ViewportSize, scheme: Any
) -> None:
    """Nothing reaches over the edge, a finger hits the switch, and every text stands out from its ground."""
    phone: dict[str, Any] = {"has_touch": True, "is_mobile": True} if name == "phone" else {}
    async with (
        visited_page(
            browser, "about:blank", viewport=viewport, color_scheme=scheme, reduced_motion="reduce", **phone
        ) as page,
    ):
        await crowded(browser, server, page)
        await page.get_by_test_id("transcript").scroll_into_view_if_needed()
        await screenshot(page, f"captions-{name}-{scheme}")
        assert await page.evaluate(TOO_WIDE) == []
        assert [each for each in await page.evaluate(CONTRASTS) if each[1] < CONTRAST] == []
        if phone:
            assert await page.evaluate(TOO_SMALL, TOUCH_PX) == []
