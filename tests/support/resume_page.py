"""A page in a conversation whose path dies, and what it and its server show of that."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from playwright.async_api import Browser, Page, Route, expect

from lab.browsers.chromium import (
    call_of,
    spy_on,
    start_talking,
    visited_page,
    wait_for_events,
    wait_for_sessions,
    wait_for_state,
)
from rtc_server.app import Server
from rtc_server.protocols import events

TOLERATED = ["Failed to load resource"]


NOTICED_MS = 15_000
"""A dead path is noticed within this: by far sooner than the browser gives it up, on a busy machine too."""


BACK_MS = 30_000


HEARD = "[data-testid=meter-voice]:not([aria-valuenow='0'])"


SAME = "The conversation goes on where it was."


@contextlib.asynccontextmanager
async def talking(
    browser: Browser, url: str, scripts: Mapping[str, tuple[str, str]] | None = None, **context: Any
) -> AsyncIterator[Page]:
    """A page in a conversation in which a voice is heard. ``scripts``: in those of such addresses, the first text is
    replaced by the second."""
    async with visited_page(browser, "about:blank", tolerate=TOLERATED, **context) as page:
        for address, texts in (scripts or {}).items():
            await page.route(address, partial(_replace, *texts))
        await spy_on(page)
        await page.goto(url)
        await start_talking(page)
        await wait_for_events(page, "message")
        yield page


async def _replace(text: str, by: str, route: Route) -> None:
    response = await route.fetch()
    script = await response.text()
    assert text in script
    await route.fulfill(response=response, body=script.replace(text, by))


async def session_of(page: Page) -> str:
    return str(await page.evaluate("window.__voice.sessionId"))


async def events_of(page: Page, event_type: str) -> list[dict[str, Any]]:
    """What the journal says of them."""
    found: list[dict[str, Any]] = await page.evaluate(
        "(type) => window.__voice.events.filter((event) => event.type === type).map(({ detail }) => detail)", event_type
    )
    return found


async def expect_resumed(page: Page, server: Server, session: str, *, muted: bool = False) -> None:
    """In the same session, with its voice; the eye and the ear are told."""
    await wait_for_state(page, "listening", "speaking", timeout_ms=BACK_MS)
    assert await session_of(page) == session
    await expect(page.locator("#announce")).to_have_text(f"Connected again. {SAME}")
    await expect(page.get_by_test_id("message")).to_be_hidden()
    await wait_for_sessions(server, 1)
    if not muted:
        await page.wait_for_selector(HEARD)


async def wait_for_loss(page: Page, count: int = 1) -> None:
    """Until the page has noticed so many losses; being back may take less time than a look at the page."""
    await page.wait_for_function(
        "(count) => window.__voice.events.filter(({ type, detail }) => type === 'state'"
        " && detail.state === 'reconnecting').length >= count",
        arg=count,
        timeout=NOTICED_MS,
    )


async def say(page: Page, server: Server, *words: str) -> None:
    """In the model's place, on the server."""
    call = await call_of(page, server)
    for word in words:
        call.outbox.emit(events.Text(word))


async def counted(page: Page) -> list[int]:
    """The numbers that a model which counts frames has said, as the page shows them."""
    said: str = await page.evaluate("document.querySelector('[data-testid=transcript]').textContent")
    return [int(word) for word in said.split() if word.isdecimal()]


async def until_counted(page: Page, number: int, timeout_ms: float = BACK_MS) -> None:
    """Until one of them is this, or more."""
    await page.wait_for_function(
        "(least) => (document.querySelector('[data-testid=transcript]').textContent.match(/\\d+/g) ?? [])"
        ".some((word) => Number(word) >= least)",
        arg=number,
        timeout=timeout_ms,
    )
