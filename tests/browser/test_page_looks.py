"""The page on a phone, in the dark, without motion, and to those who hear it instead of seeing it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Request, Route, ViewportSize, expect

from lab.browsers.chromium import (
    hand_over,
    local_url,
    screenshot,
    spy_on,
    start_talking,
    visited_page,
    wait_for_state,
)
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.support.looks import (
    CONTRAST,
    CONTRASTS,
    DESKTOP,
    NARROW,
    PHONE,
    TOO_SMALL,
    TOO_WIDE,
    TOUCH_PX,
    ZOOMED,
    in_each_scheme,
    sense_to_the_ear,
)

pytestmark = IN_A_BROWSER

_SENTENCES = (
    "Good morning. I have been thinking about what you said, and I believe the sea is the better idea. ",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft, if you like long words. ",
    "https://example.org/a/very/long/address/that/has/no/space/in/it/and/does/not/end/where/it/should",
)


async def crowded(page: Page, server: Server) -> None:
    """A conversation with everything on show: a long model name, a notice, a message, words without a space."""

    async def long_names(route: Route, _: Request) -> None:
        response = await route.fetch()
        config = await response.json()
        config["services"][0]["model"] = (
            "somebody-with-a-long-name/a-model-of-theirs-with-an-even-longer-name-pytorch-bf16"
        )
        await route.fulfill(response=response, json=config)

    await spy_on(page)
    await page.route("**/api/config", long_names)
    await page.goto(local_url(server))
    await start_talking(page)
    await page.wait_for_function("() => window.__voice.events.some(({ type }) => type === 'figures')")
    texts = [json.dumps({"type": "text", "time_ms": 1, "delta": delta}) for delta in _SENTENCES]
    trouble = json.dumps({"type": "error", "time_ms": 1, "code": "rate_limited", "message": "", "retryable": True})
    await hand_over(page, *texts, trouble)
    await page.get_by_text("What the delay is made of").click()
    await expect(page.get_by_test_id("message")).to_be_visible()


@pytest.mark.parametrize(("name", "viewport"), [("phone", PHONE), ("narrow", NARROW), ("zoomed", ZOOMED)])
async def test_on_a_phone(browser: Browser, server: Server, name: str, viewport: ViewportSize) -> None:
    """Nothing reaches over the edge, a finger hits every control, and a touch starts and ends a conversation."""
    touch: dict[str, Any] = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    async with visited_page(browser, "about:blank", viewport=viewport, **touch) as page:
        await crowded(page, server)
        # No user is told of keys that a phone does not have.
        assert await page.locator("kbd:visible").count() == 0
        async for scheme in in_each_scheme(page):
            await screenshot(page, f"page-{name}-{scheme}")
            assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            assert await page.evaluate("window.innerWidth") == viewport["width"]
            assert await page.evaluate(TOO_WIDE) == []
            assert await page.evaluate(TOO_SMALL, TOUCH_PX) == []
        await page.get_by_test_id("dismiss").tap()
        await page.get_by_test_id("start").tap()
        await wait_for_state(page, "ended")
        await page.evaluate("scrollTo(0, 0)")
        if viewport is PHONE:
            await expect(page.get_by_test_id("start")).to_be_in_viewport(ratio=1)
        await page.get_by_test_id("start").tap()
        await wait_for_state(page, "listening", "speaking")


async def test_text_stands_out_from_its_ground(browser: Browser, server: Server) -> None:
    """In every state of a conversation."""
    async with visited_page(browser, "about:blank", viewport=DESKTOP, reduced_motion="reduce") as page:
        await crowded(page, server)
        async for scheme in in_each_scheme(page):
            await screenshot(page, f"page-desktop-{scheme}")
            assert await page.evaluate(TOO_WIDE) == []
            for state in ("idle", "connecting", "listening", "speaking", "reconnecting", "ended"):
                await page.evaluate(
                    "(state) => document.querySelectorAll('[data-state]')"
                    ".forEach((one) => { one.dataset.state = state; })",
                    state,
                )
                contrasts = await page.evaluate(CONTRASTS)
                assert len(contrasts) > 20
                assert [pair for pair in contrasts if pair[1] < CONTRAST] == [], (scheme, state)


async def test_nothing_moves_for_those_who_asked_for_that(browser: Browser, server: Server) -> None:
    """While the page connects the orb breathes; with ``prefers-reduced-motion`` nothing is animated at all."""
    animations = "() => document.getAnimations().length"
    for motion in ("no-preference", "reduce"):
        async with visited_page(browser, local_url(server), reduced_motion=motion) as page:
            await page.route("**/api/offer", lambda _: None)
            await page.get_by_test_id("start").click()
            await wait_for_state(page, "connecting")
            if motion == "no-preference":
                await page.wait_for_function(f"() => ({animations})() > 0")
            else:
                await page.evaluate("() => new Promise(requestAnimationFrame)")
                assert await page.evaluate(animations) == 0
            await page.get_by_test_id("start").hover()
            await page.get_by_test_id("start").click()
            await wait_for_state(page, "ended")
            if motion == "reduce":
                assert await page.evaluate(animations) == 0


async def test_the_page_makes_sense_to_the_ear(browser: Browser, server: Server) -> None:
    """Every control and every figure has a name, headings go down step by step, and the landmarks are there."""
    async with visited_page(browser, "about:blank") as page:
        await crowded(page, server)
        nodes = await sense_to_the_ear(page)
        named = {
            "button",
            "combobox",
            "meter",
            "log",
            "region",
            "link",
            "textbox",
            "checkbox",
            "heading",
            "DisclosureTriangle",
        }
        nameless = [node for node in nodes if not node[1] and (node[0] in named or node[2].get("focusable"))]
        assert nameless == []
        buttons = [name for role, name, _ in nodes if role == "button"]
        assert len(buttons) == len(set(buttons)) >= 5
        levels = [properties["level"] for role, _, properties in nodes if role == "heading"]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        for landmark in ("banner", "main", "contentinfo"):
            assert await page.get_by_role(landmark).count() == 1
        await expect(page.get_by_role("meter", name="You")).to_be_visible()
        await expect(page.get_by_role("log", name="What it says")).to_be_visible()
        await expect(page.get_by_role("combobox", name="Microphone")).to_be_visible()
        assert await page.evaluate("document.documentElement.lang") == "en"
