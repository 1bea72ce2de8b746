"""The looks of the view that transcribes, and its sense to the ear."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, ViewportSize, expect

from lab.browsers.chromium import (
    screenshot,
    wait_for_state,
)
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.support import looks
from tests.support.transcribe_page import SENTENCES, WORDS, listening, paragraphs

pytestmark = IN_A_BROWSER


@pytest.mark.parametrize(
    ("name", "viewport"),
    [("phone", looks.PHONE), ("narrow", looks.NARROW), ("side", ViewportSize(width=844, height=390))],
    ids=["phone", "narrow", "side"],
)
async def test_on_a_phone(browser: Browser, writing: Server, name: str, viewport: ViewportSize) -> None:
    """Nothing reaches over the edge, a finger hits every control, and a tap on a word tells its time."""
    touch: dict[str, Any] = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    async with listening(browser, writing, viewport=viewport, **touch) as (page, speaker):
        await speaker.say_all([*SENTENCES[:3], "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamten"])
        await speaker.say(SENTENCES[-1], end=False)
        await expect(paragraphs(page)).to_have_count(5)
        word = page.locator(WORDS).last
        await word.scroll_into_view_if_needed()
        await word.tap()
        await expect(page.get_by_test_id("word-time")).to_be_visible()
        async for scheme in looks.in_each_scheme(page):
            await screenshot(page, f"transcribe-{name}-{scheme}")
            assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            assert await page.evaluate(looks.TOO_WIDE) == []
            assert await page.evaluate(looks.TOO_SMALL, looks.TOUCH_PX) == []
        await page.get_by_test_id("start").tap()
        await wait_for_state(page, "ended")


async def test_text_stands_out_from_its_ground(browser: Browser, writing: Server) -> None:
    """In every state; and nothing moves for those who asked for that."""
    async with listening(browser, writing, viewport=looks.DESKTOP, reduced_motion="reduce") as (page, speaker):
        await speaker.say_all(SENTENCES[:-1])
        await speaker.say(SENTENCES[-1], end=False)
        await expect(paragraphs(page)).to_have_count(len(SENTENCES))
        assert await page.evaluate("document.getAnimations().length") == 0
        await page.locator(WORDS).nth(20).hover()
        async for scheme in looks.in_each_scheme(page):
            await screenshot(page, f"transcribe-desktop-{scheme}")
            assert await page.evaluate(looks.TOO_WIDE) == []
            for heard in ("listening", "speech", "turn-ended"):
                await page.get_by_test_id("heard").evaluate("(one, heard) => { one.dataset.heard = heard; }", heard)
                contrasts = await page.evaluate(looks.CONTRASTS)
                assert len(contrasts) > 50
                assert [pair for pair in contrasts if pair[1] < looks.CONTRAST] == [], (scheme, heard)


async def test_words_fade_in(browser: Browser, writing: Server) -> None:
    """Once: not when their turn ends."""
    async with listening(browser, writing) as (page, speaker):
        await page.evaluate("""
          window.faded = [];
          document.addEventListener('animationstart', ({ animationName, target }) => {
            if (animationName === 'appear') window.faded.push(target.textContent);
          });
        """)
        await speaker.say("One two", end=False)
        await page.wait_for_function("() => faded.length === 2")
        await speaker.say("three.")
        await page.wait_for_function("() => document.getAnimations().length === 0")
        assert await page.evaluate("faded") in (["One", "two"], ["One", "two", "three."])


async def test_the_view_makes_sense_to_the_ear(browser: Browser, writing: Server) -> None:
    """Everything that can be reached has a name, and no two buttons have the same."""
    async with listening(browser, writing) as (page, speaker):
        await speaker.say_all(SENTENCES)
        await expect(paragraphs(page)).to_have_count(len(SENTENCES))
        nodes = await looks.sense_to_the_ear(page)
        named = {"button", "combobox", "radio", "log", "region", "group", "heading"}
        assert [node for node in nodes if not node[1] and (node[0] in named or node[2].get("focusable"))] == []
        buttons = [name for role, name, _ in nodes if role == "button"]
        assert len(buttons) == len(set(buttons)) >= 6
        await expect(page.get_by_role("group", name="What was said")).to_be_visible()
        await expect(page.get_by_role("combobox", name="Format")).to_be_visible()
