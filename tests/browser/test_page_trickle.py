"""The offer waits for nothing: our candidates follow it, in order, and losing them is harmless."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Request, Route, expect

from lab.browsers.chromium import local_url, start_talking, visited_page, wait_for_state
from lab.waiting import until
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER

pytestmark = IN_A_BROWSER

FAILED_REQUEST = "Failed to load resource"


@dataclass
class Door:
    """What goes through the HTTP door; refuses the first ``refusals`` requests with candidates."""

    hold: asyncio.Event | None = None
    refusals: int = 0
    status: int = 503
    offer: str = ""
    etag: str | None = None
    answered: bool = False
    patches: list[dict[str, Any]] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    too_early: int = 0

    async def stand_before(self, page: Page) -> None:
        await page.route("**/api/offer", self._offer)
        await page.route("**/api/sessions/*", self._session)

    async def until_complete(self, page: Page) -> None:
        """The page has said that there are no more, and has been answered."""
        await until(lambda: self.patches and self.patches[-1]["complete"])
        await page.unroute_all(behavior="wait")

    @property
    def candidates(self) -> list[str]:
        return [one["candidate"] for patch in self.patches for one in patch["candidates"]]

    async def _offer(self, route: Route, request: Request) -> None:
        self.offer = request.post_data_json["sdp"]
        if self.hold is not None:
            await self.hold.wait()
        response = await route.fetch()
        self.etag = response.headers["etag"]
        self.answered = True
        await route.fulfill(response=response)

    async def _session(self, route: Route, request: Request) -> None:
        if request.method != "PATCH":
            await route.continue_()
            return
        self.too_early += not self.answered
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.patches.append(json.loads(request.post_data or ""))
        self.tags.append(request.headers.get("if-match"))
        if len(self.patches) <= self.refusals:
            error = {"error": {"code": "internal", "message": "No.", "retryable": self.status >= 500}}
            self.under_way -= 1
            await route.fulfill(status=self.status, json=error)
            return
        response = await route.fetch()
        self.under_way -= 1
        assert response.status == 204, await response.text()
        await route.fulfill(response=response)


async def test_candidates_follow_the_offer(browser: Browser, server: Server) -> None:
    """What stands in the offer is not said twice, and the end is said once, last."""
    async with visited_page(browser, "about:blank") as page:
        door = Door()
        await door.stand_before(page)
        await page.goto(local_url(server))
        await start_talking(page)
        await door.until_complete(page)
        offered = [line.removeprefix("a=") for line in door.offer.splitlines() if line.startswith("a=candidate:")]
        assert "a=end-of-candidates" not in door.offer
        assert door.candidates
        assert len(set(offered + door.candidates)) == len(offered) + len(door.candidates)
        assert all(re.match(r"candidate:\S+ 1 (udp|tcp) ", one) for one in door.candidates)
        assert all(set(one) == {"candidate", "sdpMid"} for patch in door.patches for one in patch["candidates"])
        assert [patch["complete"] for patch in door.patches] == [False] * (len(door.patches) - 1) + [True]
        assert set(door.tags) == {door.etag}
        assert door.most_under_way == 1


async def test_candidates_wait_for_the_answer(browser: Browser, server: Server) -> None:
    """Before it the page does not know where to send them; then they go all together."""
    async with visited_page(browser, "about:blank") as page:
        door = Door(hold=asyncio.Event())
        await door.stand_before(page)
        await page.goto(local_url(server))
        await page.get_by_test_id("start").click()
        await page.wait_for_function("() => window.__voice.pc?.iceGatheringState === 'complete'")
        assert door.patches == []
        assert door.hold is not None
        door.hold.set()
        await wait_for_state(page, "listening", "speaking")
        await door.until_complete(page)
        assert len(door.patches) == 1
        assert door.too_early == 0


@pytest.mark.parametrize(
    ("status", "refusals", "patches"), [(503, 1, 2), (503, 2, 2), (400, 1, 1)], ids=["once", "twice", "for-good"]
)
async def test_candidates_that_are_refused_are_no_misfortune(
    browser: Browser, server: Server, status: int, refusals: int, patches: int
) -> None:
    """Tried once more where that can help; the server learns of our addresses all the same."""
    async with visited_page(browser, "about:blank", tolerate=[FAILED_REQUEST]) as page:
        door = Door(hold=asyncio.Event(), refusals=refusals, status=status)
        await door.stand_before(page)
        await page.goto(local_url(server))
        await page.get_by_test_id("start").click()
        await page.wait_for_function("() => window.__voice.pc?.iceGatheringState === 'complete'")
        assert door.hold is not None
        door.hold.set()
        await wait_for_state(page, "listening", "speaking")
        await page.wait_for_selector("[data-testid=meter-voice]:not([aria-valuenow='0'])")
        await expect(page.get_by_test_id("message")).to_be_hidden()
        await until(lambda: len(door.patches) >= patches, "the other try")
        await page.unroute_all(behavior="wait")
        assert len(door.patches) == patches
        assert all(patch == door.patches[0] for patch in door.patches)
