"""Files in the view that transcribes: up, words back as they are found, and every way in which that can fail.

``POST /api/transcribe`` is a stand-in here, made from docs/protocol.md: what the page makes of it is what is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import Browser, Dialog, FilePayload, Page, Request, Route, expect

from lab.browsers.chromium import local_url, wait_for_state
from lab.waiting import until
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.support.transcribe_page import downloaded, opened, paragraphs, texts

pytestmark = IN_A_BROWSER

WORDS = [("Hello", 320, 560), ("there.", 600, 900), ("Again.", 62_000, 62_400)]
TALK: FilePayload = {"name": "a talk.mp3", "mimeType": "audio/mpeg", "buffer": b"not really"}
FAILED_REQUEST = ["Failed to load resource"]


def event(name: str, **data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def word(text: str, start_ms: int, end_ms: int) -> str:
    return event("word", text=text, start_ms=start_ms, end_ms=end_ms)


def answer(*further: str) -> dict[str, Any]:
    """Of all words, then ``further``."""
    body = "".join([*(word(*one) for one in WORDS), *further])
    return {"status": 200, "content_type": "text/event-stream", "body": body}


DONE = event("done", duration_ms=70_000, words=len(WORDS))


@contextlib.asynccontextmanager
async def page_with(
    browser: Browser, server: Server, handle: Callable[[Route, Request], Awaitable[None]], **context: Any
) -> AsyncIterator[Page]:
    async with opened(browser, local_url(server, "?view=transcribe"), tolerate=FAILED_REQUEST, **context) as page:
        await page.route("**/api/transcribe", handle)
        yield page


async def choose(page: Page) -> None:
    """As a person does: the button opens the browser's dialog."""
    async with page.expect_file_chooser() as asked:
        await page.get_by_test_id("file-choose").click()
    await (await asked.value).set_files([TALK])


async def expect_over(page: Page) -> None:
    """Nothing is under way, and everything may be begun."""
    await expect(page.get_by_test_id("file-row")).to_be_hidden()
    for name in ("start", "file-choose"):
        await expect(page.get_by_test_id(name)).to_be_enabled()
    await expect(page.get_by_test_id("views")).to_be_enabled()


async def test_a_file(browser: Browser, writing: Server) -> None:
    """Its words in paragraphs, with its times, to be saved under its name."""
    requests: list[Request] = []

    async def handle(route: Route, request: Request) -> None:
        requests.append(request)
        await route.fulfill(**answer(DONE))

    async with page_with(browser, writing, handle) as page:
        await choose(page)
        await expect(paragraphs(page)).to_have_count(2)
        await expect_over(page)
        assert await texts(page) == ["Hello there.", "Again."]
        assert await page.locator(".paragraph time").all_inner_texts() == ["0:00", "1:02"]
        await expect(page.locator("#announce")).to_have_text("a talk.mp3 is transcribed: 3 words.")
        (request,) = requests
        assert request.method == "POST"
        assert request.headers["accept"] == "text/event-stream"
        assert request.post_data_buffer == TALK["buffer"]
        name, text = await downloaded(page, "vtt")
        assert name == "a talk.vtt"
        assert "00:01:02.000 --> " in text
        told = json.loads((await downloaded(page, "json"))[1])
        assert told["duration_ms"] == 70_000
        # Another one takes its place; what was saved is thrown away without a question.
        await choose(page)
        await page.wait_for_function("() => document.getElementById('announce').textContent.includes('3 words')")
        await expect_over(page)
        assert await texts(page) == ["Hello there.", "Again."]


async def test_words_come_as_they_are_found(browser: Browser, writing: Server) -> None:
    """Each at once; the page says how far it is, and nothing else can be begun meanwhile."""
    go_on = asyncio.Semaphore(0)

    async def transcribe(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": still here\n\n")
        for one in WORDS:
            await go_on.acquire()
            # In two pieces, cut within an event.
            text = word(*one).encode()
            await response.write(text[:17])
            await response.write(text[17:])
        await go_on.acquire()
        await response.write(DONE.encode())
        return response

    async with standing_in(transcribe) as url:

        async def handle(route: Route, _: Request) -> None:
            await route.continue_(url=url)

        async with page_with(browser, writing, handle) as page:
            await choose(page)
            progress = page.get_by_test_id("file-progress")
            await expect(progress).to_have_text("a talk.mp3 is sent. The first words are on their way…")
            for name in ("start", "file-choose"):
                await expect(page.get_by_test_id(name)).to_be_disabled()
            await expect(page.get_by_role("radio", name="Talk")).to_be_disabled()
            for count, at in ((1, "0:00"), (2, "0:00"), (3, "1:02")):
                go_on.release()
                await expect(page.locator("[data-testid=captions] .word")).to_have_count(count)
                await expect(progress).to_have_text(f"a talk.mp3: {at} transcribed")
            assert await page.evaluate("window.__voice.state") == "idle"
            go_on.release()
            await expect_over(page)


async def test_cancel(browser: Browser, writing: Server) -> None:
    """The server is told by the end of the connection; what was found by then is kept."""
    gone = asyncio.Event()

    async def transcribe(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(word(*WORDS[0]).encode())
        await until(lambda: request.transport is None or request.transport.is_closing(), "the end", 20)
        gone.set()
        return response

    async with standing_in(transcribe) as url:

        async def handle(route: Route, _: Request) -> None:
            await route.continue_(url=url)

        async with page_with(browser, writing, handle) as page:
            await choose(page)
            await expect(paragraphs(page)).to_have_count(1)
            await page.get_by_test_id("file-cancel").focus()
            await page.keyboard.press("Enter")
            await expect_over(page)
            await expect(page.get_by_test_id("file-choose")).to_be_focused()
            await expect(page.locator("#announce")).to_have_text("Cancelled. What was found by then is kept.")
            await expect(page.get_by_test_id("message")).to_be_hidden()
            assert await texts(page) == ["Hello"]
            async with asyncio.timeout(10):
                await gone.wait()


@pytest.mark.parametrize(
    ("status", "code", "shown", "title"),
    [
        (422, "not_audio", "file_not_audio", "This file holds no sound that can be read"),
        (413, "too_large", "file_too_large", "This file is too large"),
        (413, "time_limit", "file_too_long", "This file is too long"),
        (422, "file_unreadable", "file_unreadable", "This file cannot be read"),
        (404, "unknown_service", "file_not_here", "This server does not transcribe files"),
        (503, "server_full", "server_full", "All places are taken"),
        (500, "internal", "internal", "The server made a mistake"),
    ],
)
async def test_a_file_that_is_refused(
    browser: Browser, writing: Server, status: int, code: str, shown: str, title: str
) -> None:
    refusals = 0

    async def handle(route: Route, _: Request) -> None:
        nonlocal refusals
        refusals += 1
        if refusals > 1:
            await route.fulfill(**answer(DONE))
            return
        error = {"error": {"code": code, "message": "No.", "retryable": status == 503}}
        await route.fulfill(status=status, json=error)

    async with page_with(browser, writing, handle) as page:
        await choose(page)
        message = page.get_by_test_id("message")
        await expect(message).to_have_attribute("data-code", shown)
        await expect(message).to_contain_text(title)
        await expect_over(page)
        if status < 500:
            await expect(page.get_by_test_id("retry")).to_be_hidden()
            return
        await page.get_by_test_id("retry").click()
        await expect(paragraphs(page)).to_have_count(2)
        await expect(message).to_be_hidden()


@pytest.mark.parametrize("how", ["error", "cut", "dead", "nonsense"])
async def test_a_file_that_breaks_off(browser: Browser, writing: Server, how: str) -> None:
    """What has come is kept, and the page says why there is no more."""

    async def handle(route: Route, _: Request) -> None:
        failure = {"code": "engine_failed", "message": "Gone.", "retryable": True}
        if how == "error":
            await route.fulfill(**answer(event("error", error=failure)))
        elif how == "cut":
            await route.fulfill(**answer())
        elif how == "nonsense":
            await route.fulfill(status=502, body="<html>nginx</html>")
        else:
            await route.abort()

    async with page_with(browser, writing, handle) as page:
        await choose(page)
        codes = {"error": "engine_failed", "cut": "file_cut", "dead": "unreachable", "nonsense": "bad_gateway"}
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", codes[how])
        await expect_over(page)
        assert await texts(page) == (["Hello there.", "Again."] if how in ("error", "cut") else [])


async def test_files_and_talk_one_after_the_other(browser: Browser, writing: Server) -> None:
    """While one talks no file can be chosen; afterwards a file asks before it takes the place of unsaved words."""
    questions: list[str] = []

    async def handle(route: Route, _: Request) -> None:
        await route.fulfill(**answer(DONE))

    async def dismiss(dialog: Dialog) -> None:
        questions.append(dialog.message)
        await dialog.dismiss()

    async with page_with(browser, writing, handle) as page:
        page.on("dialog", dismiss)
        await choose(page)
        await expect_over(page)
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "listening")
        await expect(page.get_by_test_id("file-choose")).to_be_disabled()
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await choose(page)
        await expect_over(page)
        assert len(questions) == 1
        assert (await texts(page))[:2] == ["Hello there.", "Again."]


async def test_a_server_that_wants_a_key(browser: Browser, writing: Server) -> None:
    """It is asked for, and then the file goes up with it, without being chosen again."""
    keys: list[str | None] = []

    async def handle(route: Route, request: Request) -> None:
        keys.append(request.headers.get("authorization"))
        if len(keys) == 1:
            refused = {"error": {"code": "unauthorized", "message": "No.", "retryable": False}}
            await route.fulfill(status=401, json=refused)
            return
        await route.fulfill(**answer(DONE))

    async with page_with(browser, writing, handle) as page:
        await choose(page)
        await expect(page.get_by_test_id("message")).to_have_attribute("data-code", "unauthorized")
        await page.get_by_test_id("key").fill("secret")
        await page.keyboard.press("Enter")
        await expect(paragraphs(page)).to_have_count(2)
        assert keys == [None, "Bearer secret"]
        assert re.fullmatch("idle", await page.evaluate("window.__voice.state"))


@contextlib.asynccontextmanager
async def standing_in(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server with nothing but ``POST /api/transcribe``; its URL."""
    app = web.Application(client_max_size=2**20)
    app.add_routes([web.post("/api/transcribe", handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert runner.addresses
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/api/transcribe"
    finally:
        await runner.cleanup()


async def test_what_of_a_file_was_not_heard_is_said(browser: Browser, writing: Server) -> None:
    """The words that came stay."""
    missing = "The file breaks off before its end: what comes after that is missing."

    async def handle(route: Route, _: Request) -> None:
        await route.fulfill(**answer(event("warning", code="cut_off", message=missing), DONE))

    async with page_with(browser, writing, handle) as page:
        await choose(page)
        message = page.get_by_test_id("message")
        await expect(message).to_have_attribute("data-code", "file_in_part")
        await expect(message).to_contain_text(missing)
        await expect(page.get_by_test_id("retry")).to_be_hidden()
        assert len(await texts(page)) > 0
        await expect_over(page)
