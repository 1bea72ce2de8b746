"""The page says what there is to say to a model that tells, and nothing of it for one that does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from lab.browsers.chromium import local_url, screenshot, start_talking, visited_page
from lab.stenographer import Stenographer
from rtc_server import bundled
from rtc_server.app import Server
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import BoolArray, Example, FloatArray, RowOutput
from rtc_server.models.about import read_about
from rtc_server.models.echo import EchoModel
from rtc_server.usage import invocation
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import server_with
from tests.support.fake_models import CountingModel
from tests.support.looks import (
    CONTRAST,
    CONTRASTS,
    DESKTOP,
    NARROW,
    PHONE,
    TOO_SMALL,
    TOO_WIDE,
    TOUCH_PX,
    in_each_scheme,
)

pytestmark = IN_A_BROWSER

ABOUT = read_about(bundled.directory_of(bundled.PICO) or Path())
LONG = Example(
    "Anything with a very long name that does not fit", ("donaudampfschifffahrtsgesellschaft" * 3, "<b>hi</b>")
)


class Pico(CountingModel):
    """Tells of itself what the bundled model tells, and more."""

    def __init__(self) -> None:
        super().__init__(4)
        self.info = dataclasses.replace(
            self.info, name="pico", notice=ABOUT.notice, hint=ABOUT.hint, examples=(*ABOUT.examples, LONG)
        )


class Quiet(Pico):
    """Listens, and says nothing."""

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        return super().step(0 * pcm, active)


LINKS = {
    "dialogue": lambda: LocalLink(Pico),
    "transcribe": lambda: LocalLink(lambda: Stenographer(2)),
    "echo": lambda: LocalLink(lambda: EchoModel(2)),
}


async def test_what_to_say_and_what_to_know(browser: Browser) -> None:
    async with (
        server_with(LINKS) as server,
        visited_page(browser, local_url(server), viewport=DESKTOP) as page,
    ):
        examples, rows = page.get_by_test_id("examples"), page.get_by_test_id("examples-list").locator("div")
        await expect(page.get_by_role("region", name="Phrases to try")).to_be_visible()
        await expect(rows).to_have_count(len(ABOUT.examples) + 1)
        await expect(page.get_by_test_id("notice")).to_contain_text(ABOUT.notice)
        await expect(page.get_by_test_id("notice-hint")).to_have_text(invocation.shown(ABOUT.hint))
        for row, example in zip(await rows.all(), ABOUT.examples, strict=False):
            await expect(row.get_by_role("term")).to_have_text(example.topic)
            await expect(row.locator("span")).to_have_text([f"“{phrase}”" for phrase in example.say])
            await expect(row.locator("span").first).to_be_visible()
        # Text, whatever is in it.
        await expect(rows.last.locator("span").last).to_have_text("“<b>hi</b>”")
        await page.get_by_role("radio", name="Transcribe").check()
        await expect(examples).to_be_hidden()
        await expect(page.get_by_test_id("notice")).to_be_hidden()
        await page.get_by_role("radio", name="Talk").check()
        await expect(examples).to_be_visible()
        # Folded, it stays folded when the configuration comes again.
        await page.get_by_test_id("examples-summary").click()
        await expect(rows.first).to_be_hidden()
        await start_talking(page)
        await expect(rows.first).to_be_hidden()
        said = "window.__voice.events.filter(({ type }) => type === 'config').length"
        assert await page.evaluate(said) >= 1


async def test_the_first_phrase_is_there_when_it_is_wanted(browser: Browser) -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(Quiet)}) as server,
        visited_page(browser, local_url(server)) as page,
    ):
        await start_talking(page)
        await expect(page.get_by_test_id("state-detail")).to_contain_text("Try saying “hello”.")


async def test_a_model_without_any(browser: Browser, server: Server) -> None:
    async with visited_page(browser, local_url(server), viewport=DESKTOP) as page:
        await start_talking(page)
        await expect(page.get_by_test_id("examples")).to_be_hidden()
        await expect(page.get_by_test_id("state-detail")).not_to_contain_text("Try")
        stage = await page.locator(".stage").bounding_box()
        words = await page.locator(".words").bounding_box()
        assert stage is not None
        assert words is not None
        assert (words["y"], words["height"]) == (stage["y"], stage["height"])


@pytest.mark.parametrize(
    ("name", "viewport", "touch"),
    [
        ("phone", PHONE, True),
        ("narrow", NARROW, True),
        ("side", {"width": 844, "height": 390}, True),
        ("desktop", DESKTOP, False),
    ],
    ids=["phone", "narrow", "side", "desktop"],
)
async def test_it_fits(browser: Browser, name: str, viewport: dict[str, int], touch: bool) -> None:
    """Nothing reaches over the edge, a finger hits what can be pressed, and text stands out. On a phone the phrases are
    folded away until they are asked for, and the button to start is in view beside the notice."""
    look: dict[str, Any] = {"viewport": viewport, "has_touch": touch, "is_mobile": touch}
    async with (
        server_with(LINKS) as server,
        visited_page(browser, local_url(server), **look) as page,
    ):
        phrase = page.get_by_test_id("examples-list").locator("span").first
        summary = page.get_by_test_id("examples-summary")
        await expect(summary).to_be_visible()
        if touch:
            await expect(phrase).to_be_hidden()
            await summary.tap()
        if name == "phone":
            await page.evaluate("scrollTo(0, 0)")
            await expect(page.get_by_test_id("start")).to_be_in_viewport(ratio=1)
        await expect(phrase).to_be_visible()
        async for scheme in in_each_scheme(page):
            await screenshot(page, f"examples-{name}-{scheme}")
            assert await page.evaluate(TOO_WIDE) == []
            if touch:
                assert await page.evaluate(TOO_SMALL, TOUCH_PX) == []
            assert [pair for pair in await page.evaluate(CONTRASTS) if pair[1] < CONTRAST] == [], scheme
