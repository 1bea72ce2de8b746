"""A transcript in the page: how it is read, by eye and ear, when it is long, and what can be done with it."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, Dialog, expect

from lab.browsers.chromium import (
    wait_for_state,
)
from rtc_server.app import Server
from tests.browser.conftest import IN_A_BROWSER
from tests.support.transcribe_page import (
    SENTENCES,
    WORDS,
    Speaker,
    downloaded,
    listening,
    paragraphs,
    texts,
    wait_for_words,
)

pytestmark = IN_A_BROWSER


TAIL_WORDS = 1_500
"""Of static/transcription/wordlog.js, like the next."""


MOST_WORDS = 6_000


PARAGRAPH_WORDS = 250
"""No paragraph has more, static/transcription/paragraphs.js."""


async def test_a_screen_reader_is_told_paragraphs(browser: Browser, writing: Server) -> None:
    """Not words: the log changes once for a turn, and what was read before is not read again."""
    async with listening(browser, writing) as (page, speaker):
        await page.evaluate("""
          window.told = [];
          new MutationObserver((all) => all.forEach(({ addedNodes }) => addedNodes.forEach((node) =>
            window.told.push(node.textContent)))).observe(document.getElementById('captions-log'),
            { childList: true, subtree: true, characterData: true });
        """)
        await expect(page.get_by_role("log", name="What was said")).to_have_attribute("aria-live", "polite")
        await speaker.say("One two three", end=False)
        await wait_for_words(page, 3)
        assert await page.evaluate("told") == []
        assert await page.locator("#captions-now").evaluate("(now) => now.closest('[aria-live], [role=log]')") is None
        await speaker.say("four.")
        await speaker.say("Five.")
        await page.wait_for_function("() => told.length === 2")
        assert await page.evaluate("told") == ["0:01 One two three four.", "0:02 Five."]


async def test_the_time_of_each_word(browser: Browser, writing: Server) -> None:
    """Under the mouse, by the keyboard, and gone again; Escape hides it before it ends anything."""
    async with listening(browser, writing) as (page, speaker):
        await speaker.say_all(["One two three.", "Four five."])
        await wait_for_words(page, 5)
        tip, words = page.get_by_test_id("word-time"), page.locator(WORDS)
        await words.nth(1).hover()
        await expect(tip).to_have_text("0:01.4 – 0:01.7")
        await page.get_by_test_id("heard").hover()
        await expect(tip).to_be_hidden()

        await page.get_by_test_id("captions").focus()
        for at in range(4):
            await page.keyboard.press("ArrowRight")
            await expect(words.nth(at)).to_be_focused()
        await page.keyboard.press("ArrowLeft")
        await expect(words.nth(2)).to_have_accessible_description("0:01.8 – 0:02.1")
        await expect(tip).to_be_visible()
        box, word = await tip.bounding_box(), await words.nth(2).bounding_box()
        assert box is not None
        assert word is not None
        assert box["y"] + box["height"] <= word["y"] or box["y"] >= word["y"] + word["height"]
        await page.keyboard.press("Escape")
        await expect(tip).to_be_hidden()
        assert await page.evaluate("window.__voice.state") == "listening"
        # One stop of the Tab key, however many words.
        await page.keyboard.press("Tab")
        await expect(page.get_by_test_id("captions-copy")).to_be_focused()
        await page.keyboard.press("Escape")
        await wait_for_state(page, "ended")


async def test_what_is_read_stays_where_it_is(browser: Browser, writing: Server) -> None:
    """The end is kept in view until the user scrolls up, and again once they are back."""
    async with listening(browser, writing) as (page, speaker):
        newest, scroll = page.get_by_test_id("captions-newest"), page.get_by_test_id("captions")
        from_end = "(box) => Math.round(box.scrollHeight - box.scrollTop - box.clientHeight)"
        await speaker.say_all(SENTENCES * 5)
        await expect(paragraphs(page)).to_have_count(30)
        assert await scroll.evaluate(from_end) <= 1
        await expect(newest).to_be_hidden()
        await scroll.hover()
        await page.mouse.wheel(0, -400)
        await expect(newest).to_be_visible()
        before = await scroll.evaluate("(box) => box.scrollTop")
        await speaker.say_all(SENTENCES)
        await expect(paragraphs(page)).to_have_count(36)
        assert await scroll.evaluate("(box) => box.scrollTop") == before
        await newest.click()
        await expect(newest).to_be_hidden()
        assert await scroll.evaluate(from_end) <= 1
        await speaker.say_all(SENTENCES)
        await expect(paragraphs(page)).to_have_count(42)
        assert await scroll.evaluate(from_end) <= 1
        # A phone that is turned, a keyboard that comes up.
        await page.set_viewport_size({"width": 700, "height": 500})
        await page.wait_for_function(f"() => ({from_end})(document.getElementById('captions')) <= 1")


@pytest.mark.timeout(240)
async def test_an_hour_of_words(browser: Browser, writing: Server) -> None:
    """A bounded part of them is in the page; all can be read again, and all are in a download."""
    sentence = " ".join(f"word{at}" for at in range(99))
    async with listening(browser, writing) as (page, speaker):
        earlier, newest = page.get_by_test_id("captions-earlier"), page.get_by_test_id("captions-newest")
        count = page.locator(WORDS)
        total = 90
        assert total * 100 > MOST_WORDS + TAIL_WORDS
        for at in range(0, total, 15):
            await speaker.say_all([f"turn{at + n} {sentence}" for n in range(15)])
        await expect(paragraphs(page).last).to_contain_text(f"turn{total - 1} ")
        assert TAIL_WORDS - PARAGRAPH_WORDS <= await count.count() <= TAIL_WORDS
        turns = [f"turn{at} {sentence}\n" for at in range(total)]
        assert (await downloaded(page, "txt"))[1] == "\n".join(turns)

        top = paragraphs(page).first
        text = await top.inner_text()
        await page.get_by_test_id("captions").evaluate("(box) => box.scrollTo(0, 0)")
        seen = page.locator(".paragraph").filter(has_text=text.split()[1] + " ")
        await earlier.scroll_into_view_if_needed()
        before = await seen.bounding_box()
        await earlier.click()
        after = await seen.bounding_box()
        assert before is not None
        assert after is not None
        assert after["y"] == pytest.approx(before["y"], abs=2)
        while await earlier.is_visible():
            await earlier.click()
            assert await count.count() <= MOST_WORDS + PARAGRAPH_WORDS
        await expect(paragraphs(page).first).to_contain_text("turn0 ")
        await expect(page.get_by_test_id("captions")).to_be_focused()

        # What comes meanwhile is kept, and shown when it is wanted.
        await speaker.say("And this is new.")
        await expect(newest).to_be_visible()
        await newest.click()
        await expect(paragraphs(page).last).to_contain_text("And this is new.")
        assert await count.count() <= TAIL_WORDS
        await speaker.say("And so is this.")
        await expect(paragraphs(page).last).to_contain_text("And so is this.")
        order = [int(name[4:]) for name in re.findall(r"turn\d+", " ".join(await texts(page)))]
        assert order == list(range(order[0], total))
        # What was rendered again is not told again.
        told = await page.get_by_test_id("captions-log").inner_text()
        assert "turn" not in told
        assert told.count("And so is this.") == 1


async def test_copy_download_clear(browser: Browser, writing: Server) -> None:
    """Each as soon as there is something; what is not saved is not thrown away without a question."""
    async with (
        listening(browser, writing, permissions=["microphone", "clipboard-read", "clipboard-write"]) as (page, speaker),
    ):
        buttons = [page.get_by_test_id(f"captions-{name}") for name in ("copy", "download", "clear")]
        for button in buttons:
            await expect(button).to_be_disabled()
        questions: list[str] = []

        async def answer(dialog: Dialog) -> None:
            questions.append(dialog.message)
            await (dialog.dismiss() if len(questions) == 1 else dialog.accept())

        page.on("dialog", answer)
        await speaker.say_all(["One two.", "Three."])
        await expect(buttons[2]).to_be_enabled()
        await buttons[2].click()
        assert await texts(page) == ["One two.", "Three."]
        await buttons[0].click()
        await page.wait_for_selector("[data-testid=captions-copy]:text-is('Copied')")  # for two seconds
        assert await page.evaluate("navigator.clipboard.readText()") == "One two.\n\nThree.\n"
        for form, begins in (
            ("txt", "One two."),
            ("srt", "1\n00:00:01,000 --> 00:00:0"),
            ("vtt", "WEBVTT\n\n00:00:01.000 --> "),
            ("json", '{"duration_ms":2100,'),
        ):
            name, text = await downloaded(page, form)
            assert re.fullmatch(rf"transcript-\d{{4}}-\d\d-\d\d-\d{{4}}\.{form}", name)
            assert text.startswith(begins)
        # Saved: no question.
        await buttons[2].click()
        await expect(paragraphs(page)).to_have_count(0)
        await expect(buttons[2]).to_be_focused()
        await expect(buttons[2]).to_be_disabled()
        assert len(questions) == 1
        # The session goes on, and so do its times.
        await speaker.say("Four.")
        await expect(paragraphs(page)).to_have_count(1)
        assert await page.locator(".paragraph time").inner_text() == "0:02"
        await buttons[2].click()
        await expect(paragraphs(page)).to_have_count(0)
        assert len(questions) == 2


async def test_a_second_session_follows_the_first(browser: Browser, writing: Server) -> None:
    """On one timeline, with a word on where it begins."""
    async with listening(browser, writing) as (page, speaker):
        await speaker.say("One two.")
        await expect(paragraphs(page)).to_have_count(1)
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await page.get_by_test_id("start").click()
        await page.get_by_test_id("mute").click()
        await wait_for_state(page, "listening")
        await page.wait_for_function(
            "() => window.__voice.events.filter(({ detail }) => detail?.type === 'connected').length === 2"
        )
        await Speaker(page).say("Three.")
        await expect(paragraphs(page)).to_have_count(2)
        await expect(paragraphs(page).nth(1)).to_have_attribute("data-title", re.compile("^Begun at "))
        assert await page.locator(".paragraph time").all_inner_texts() == ["0:01", "0:03"]
