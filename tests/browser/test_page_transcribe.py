"""The view that transcribes: words as they are spoken, what can be done with them, and hours of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Browser, Dialog, Locator, Page, Route, ViewportSize, expect

from lab.browsers.chromium import (
    call_of,
    chromium,
    hand_over,
    local_url,
    screenshot,
    spy_on,
    start_talking,
    visited_page,
    wait_for_sessions,
    wait_for_state,
)
from lab.speech.clips import SPEECH_HZ, speak, write_wav
from lab.stenographer import Stenographer
from rtc_server.app import Server
from rtc_server.config import Settings, parse
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from rtc_server.models.tiny import write_tiny_checkpoint
from rtc_server.protocols import events
from rtc_server.services import make_engines
from tests.browser.test_page_resume import wait_for_loss
from tests.conftest import UNLIMITED, need_commands, running_server
from tests.support import looks
from tests.support.paths import paths_to

pytestmark = pytest.mark.browser

# A tone would be taken for noise, and removed, unless the browser leaves the microphone as it is.
RAW = "?raw=1&view=transcribe"
WORDS = "[data-testid=captions] .word"
TAIL_WORDS = 1_500
"""Of static/transcription/wordlog.js, like the next."""
MOST_WORDS = 6_000
PARAGRAPH_WORDS = 250
"""No paragraph has more, static/transcription/paragraphs.js."""

SENTENCES = (
    "Good morning everybody. Before we begin, a word about last week.",
    "The trial with the new microphones went better than any of us had hoped: nobody complained about echo, "
    "and the two people who joined from a train could follow everything.",
    "There is one thing left to decide. Do we keep the recordings, or only what was written down?",
    "I would keep the words and nothing else. They are easier to search, and nobody has to listen to me twice.",
    "Agreed.",
    "Then let us look at the numbers for November",
)


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("chromium")


@contextlib.asynccontextmanager
async def writing_server(*arguments: str) -> AsyncIterator[Server]:
    """It writes the pitch of tones; and there is the echo to talk with."""
    options = ["--port", "0", "--model", "echo", "--engine", "thread", "--vad", "off", *UNLIMITED]

    def engines(settings: Settings, metrics: Metrics) -> dict[str, EngineClient]:
        stenographer = EngineClient("transcribe", lambda: LocalLink(lambda: Stenographer(4)), metrics)
        return {**make_engines(settings, metrics), "transcribe": stenographer}

    server = Server(parse([*options, *arguments], environment={}), make_engines=engines)
    await server.start()
    try:
        await server.wait_ready()
        yield server
    finally:
        await server.stop(0.0)


@pytest.fixture
async def writing() -> AsyncIterator[Server]:
    async with writing_server() as server:
        yield server


@pytest.fixture
def turns_file(tmp_path: Path) -> Path:
    """Three words of 600 Hz, a pause in which a turn ends, over and over."""
    seconds = np.arange(SPEECH_HZ * 6) / SPEECH_HZ
    spoken = (seconds % 0.8 < 0.32) & (seconds < 2.4)
    return write_wav(tmp_path / "turns.wav", (0.25 * np.sin(2 * np.pi * 600 * seconds) * spoken).astype(np.float32))


@contextlib.asynccontextmanager
async def opened(browser: Browser, url: str, *, tolerate: Sequence[str] = (), **context: Any) -> AsyncIterator[Page]:
    """The view, with the spy in it, and its own policy kept."""
    async with visited_page(browser, "about:blank", tolerate=tolerate, **context) as page:
        await spy_on(page)
        await page.goto(url)
        await expect(page.get_by_test_id("captions")).to_be_visible()
        yield page
        if not page.is_closed():
            assert await page.evaluate("spied.violations") == []


class Speaker:
    """Says words in the server's place, each 400 ms after the one before."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._seq = 1_000
        self.at_ms = 1_000

    def _message(self, kind: str, **fields: Any) -> str:
        self._seq += 1
        return json.dumps({"type": kind, "time_ms": self.at_ms, "seq": self._seq, **fields})

    async def say(self, text: str, *, end: bool = True) -> None:
        """``end``: of the turn."""
        await self.say_all([text], end=end)

    async def say_all(self, texts: Sequence[str], *, end: bool = True) -> None:
        messages = []
        for text in texts:
            messages.append(self._message("speech-started", at_ms=self.at_ms))
            for word in text.split():
                messages.append(self._message("word", text=word, start_ms=self.at_ms, end_ms=self.at_ms + 300))
                self.at_ms += 400
            if end:
                messages.append(self._message("speech-ended", at_ms=self.at_ms))
                messages.append(self._message("turn-ended", at_ms=self.at_ms))
        await hand_over(self._page, *messages)


@contextlib.asynccontextmanager
async def listening(browser: Browser, server: Server, **context: Any) -> AsyncIterator[tuple[Page, Speaker]]:
    """A session in which only the :class:`Speaker` talks: the microphone is muted."""
    async with opened(browser, local_url(server, RAW), **context) as page:
        await page.get_by_test_id("start").click()
        await page.get_by_test_id("mute").click()
        await wait_for_state(page, "listening")
        await page.wait_for_function("() => window.__voice.events.some(({ detail }) => detail?.type === 'connected')")
        yield page, Speaker(page)


async def wait_for_words(page: Page, count: int) -> None:
    await page.wait_for_function(
        "([words, count]) => document.querySelectorAll(words).length >= count", arg=[WORDS, count], timeout=20_000
    )


def paragraphs(page: Page) -> Locator:
    return page.get_by_test_id("captions").locator(".paragraph")


async def texts(page: Page) -> list[str]:
    """Of each paragraph its words."""
    found: list[str] = await paragraphs(page).evaluate_all("(all) => all.map((one) => one.lastElementChild.innerText)")
    return found


async def downloaded(page: Page, form: str) -> tuple[str, str]:
    """Its name and its text."""
    await page.get_by_test_id("captions-format").select_option(form)
    async with page.expect_download() as begun:
        await page.get_by_test_id("captions-download").click()
    download = await begun.value
    path = await download.path()
    return download.suggested_filename, await asyncio.to_thread(path.read_text, encoding="utf-8")


async def test_words_appear_while_one_speaks(writing: Server, turns_file: Path) -> None:
    """In paragraphs by turn, with the state in words; after the end they are all there, to be saved."""
    async with chromium(turns_file) as browser, opened(browser, local_url(writing, RAW)) as page:
        await expect(page.get_by_test_id("model")).to_have_text("stenographer on cpu")
        await expect(page.get_by_test_id("start")).to_have_text("Start transcribing")
        await expect(page.get_by_test_id("heard")).to_be_hidden()
        await start_talking(page)
        await expect(page.get_by_test_id("state-detail")).to_have_text("Just talk. What you say is written down.")
        heard = page.get_by_test_id("heard")
        for word in ("Speech", "Turn ended", "Listening", "Speech"):
            await expect(heard).to_have_text(word, timeout=20_000)
        # Each turn of three words is a paragraph of its own; the first may have been under way, the last may be.
        await page.wait_for_function("() => document.querySelectorAll('.paragraph').length >= 3", timeout=30_000)
        assert (await texts(page))[1] == "600 600 600"
        assert await page.get_by_test_id("captions-log").locator("p").count() >= 2
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(page.get_by_test_id("state-detail")).to_have_text("You ended the transcription.")
        await expect(heard).to_be_hidden()
        # What was under way is closed as well.
        await expect(page.get_by_test_id("captions-now").locator("p")).to_have_count(0)
        shown = await texts(page)
        told = json.loads((await downloaded(page, "json"))[1])
        assert [turn["text"] for turn in told["turns"]] == shown
        starts = [turn["start_ms"] for turn in told["turns"]]
        assert np.diff(starts)[1:] == pytest.approx(6_000, abs=400) or len(starts) < 3


async def test_the_last_word_comes_after_the_end(writing: Server, tmp_path: Path) -> None:
    """It was under way when the button was pressed: the tone goes on, so the model has not closed it before."""
    seconds = np.arange(SPEECH_HZ) / SPEECH_HZ
    tone = write_wav(tmp_path / "tone.wav", (0.25 * np.sin(2 * np.pi * 600 * seconds)).astype(np.float32))
    async with chromium(tone) as browser, opened(browser, local_url(writing, RAW)) as page:
        await start_talking(page)
        await expect(page.get_by_test_id("heard")).to_have_text("Speech")
        assert await texts(page) == []
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await expect(paragraphs(page)).to_have_count(1)
        assert (await texts(page))[0].startswith("600")
        await expect(page.get_by_test_id("captions-log").locator("p")).to_have_count(1)
        await wait_for_sessions(writing, 0)


async def test_a_real_model_writes(tmp_path: Path) -> None:
    """A tiny one of random weights: what it writes means nothing."""
    need_commands("espeak-ng")
    spoken = write_wav(tmp_path / "speech.wav", speak("Hello there. How are you today?"))
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny-stt", "stt")
    arguments = ("--model", "echo", "--stt", str(checkpoint), "--stt-slots", "2", "--threads", "1")
    async with (
        running_server(*arguments) as server,
        chromium(spoken) as browser,
        # Without ?view: what the server does by default is to transcribe.
        opened(browser, local_url(server)) as page,
    ):
        await expect(page.get_by_test_id("model")).to_contain_text("tiny-stt")
        await start_talking(page)
        await wait_for_words(page, 8)
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")


async def test_words_are_text_whatever_they_say(writing: Server) -> None:
    evil = "<img/src=x/onerror='window.fooled=true'> <b>bold</b> &amp;"
    async with chromium() as browser, listening(browser, writing) as (page, speaker):
        await speaker.say(evil)
        await expect(paragraphs(page)).to_have_count(1)
        assert await texts(page) == [evil]
        assert await page.locator(".word *").count() == 0
        assert await page.evaluate("window.fooled") is None
        await hand_over(
            page,
            *(
                json.dumps({"type": "word", "time_ms": 1, **fields})
                for fields in ({}, {"text": " "}, {"text": "a"}, {"text": 7, "start_ms": 1, "end_ms": 2})
            ),
            '{"type": "turn-ended"}',
        )
        await speaker.say("After.")
        await expect(paragraphs(page)).to_have_count(2)


async def test_a_resume_repeats_nothing(writing: Server) -> None:
    """The times go on, and what the server sends again is there once."""
    async with (
        paths_to(writing) as paths,
        chromium() as browser,
        opened(browser, f"{paths.url}{RAW}", tolerate=["Failed to load resource"]) as page,
    ):
        await page.get_by_test_id("start").click()
        await page.get_by_test_id("mute").click()  # before it listens: a beep of this microphone would be a word
        await wait_for_state(page, "listening")
        session = await page.evaluate("window.__voice.sessionId")
        call = await call_of(page, writing)
        for at in range(3):
            call.outbox.emit(events.Word(f"w{at}", at * 400, at * 400 + 300))
        await wait_for_words(page, 3)
        paths.cut()
        call.outbox.emit(events.Word("w3", 1_200, 1_500))
        call.outbox.emit(events.TurnEnded(1_900))
        await wait_for_loss(page)
        await wait_for_words(page, 4)
        await wait_for_state(page, "listening")
        assert await page.evaluate("window.__voice.sessionId") == session
        call.outbox.emit(events.Word("w4", 2_400, 2_700))
        await wait_for_words(page, 5)
        assert await texts(page) == ["w0 w1 w2 w3", "w4"]


async def test_a_server_that_does_not_transcribe(server: Server) -> None:
    """The page is what it was, whatever the address asks for."""
    async with chromium() as browser:
        for query in ("", "?view=transcribe"):
            async with visited_page(browser, local_url(server, query)) as page:
                await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
                await expect(page.get_by_test_id("transcript")).to_be_visible()
                for hidden in ("views", "captions", "file-choose"):
                    await expect(page.get_by_test_id(hidden)).to_be_hidden()
                await expect(page.get_by_test_id("start")).to_have_text("Start talking")
                await start_talking(page)
                await expect(page.get_by_test_id("state-detail")).to_contain_text("You can")


async def test_the_switch_by_keyboard(writing: Server) -> None:
    """It leads to the service, is kept in the address, and cannot be moved while a session runs."""
    async with chromium() as browser, visited_page(browser, local_url(writing)) as page:
        talk, transcribe = (page.get_by_role("radio", name=name, exact=True) for name in ("Talk", "Transcribe"))
        await expect(talk).to_be_checked()
        await expect(page.get_by_test_id("model")).to_have_text("echo on cpu")
        await expect(page.get_by_role("group", name="What to do")).to_be_visible()
        await talk.focus()
        await page.keyboard.press("ArrowRight")
        await expect(transcribe).to_be_checked()
        await expect(page.get_by_test_id("captions")).to_be_visible()
        await expect(page.get_by_test_id("transcript")).to_be_hidden()
        await expect(page.get_by_test_id("model")).to_have_text("stenographer on cpu")
        assert "view=transcribe" in page.url
        await page.reload()
        await expect(transcribe).to_be_checked()
        await start_talking(page)
        assert (await call_of(page, writing)).service == "transcribe"
        await expect(talk).to_be_disabled()
        await expect(page.get_by_role("group", name="What to do")).to_have_accessible_description(
            "End this first to switch."
        )
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        await talk.click()
        await expect(page.get_by_test_id("transcript")).to_be_visible()
        await start_talking(page)
        assert (await call_of(page, writing)).service == "echo"


async def test_who_is_quicker_than_the_configuration(writing: Server) -> None:
    """Gets what the address asks for all the same."""
    async with chromium() as browser, visited_page(browser, "about:blank") as page:
        answer = asyncio.Event()

        async def hold(route: Route) -> None:
            await answer.wait()
            await route.continue_()

        await page.route("**/api/config", hold)
        await page.goto(local_url(writing, RAW))
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "connecting")
        answer.set()
        await wait_for_state(page, "listening")
        assert (await call_of(page, writing)).service == "transcribe"


async def test_a_screen_reader_is_told_paragraphs(writing: Server) -> None:
    """Not words: the log changes once for a turn, and what was read before is not read again."""
    async with chromium() as browser, listening(browser, writing) as (page, speaker):
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


async def test_the_time_of_each_word(writing: Server) -> None:
    """Under the mouse, by the keyboard, and gone again; Escape hides it before it ends anything."""
    async with chromium() as browser, listening(browser, writing) as (page, speaker):
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


async def test_what_is_read_stays_where_it_is(writing: Server) -> None:
    """The end is kept in view until the user scrolls up, and again once they are back."""
    async with chromium() as browser, listening(browser, writing) as (page, speaker):
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


async def test_hours_of_words(writing: Server) -> None:
    """A bounded part of them is in the page; all can be read again, and all are in a download."""
    sentence = " ".join(f"word{at}" for at in range(99))
    async with chromium() as browser, listening(browser, writing) as (page, speaker):
        earlier, newest = page.get_by_test_id("captions-earlier"), page.get_by_test_id("captions-newest")
        count = page.locator(WORDS)
        total = 200
        for at in range(0, total, 20):
            await speaker.say_all([f"turn{at + n} {sentence}" for n in range(20)])
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


async def test_copy_download_clear(writing: Server) -> None:
    """Each as soon as there is something; what is not saved is not thrown away without a question."""
    async with (
        chromium() as browser,
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
        await expect(buttons[0]).to_have_text("Copied")
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


async def test_a_second_session_follows_the_first(writing: Server) -> None:
    """On one timeline, with a word on where it begins."""
    async with chromium() as browser, listening(browser, writing) as (page, speaker):
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "viewport"),
    [("phone", looks.PHONE), ("narrow", looks.NARROW), ("side", ViewportSize(width=844, height=390))],
    ids=["phone", "narrow", "side"],
)
async def test_on_a_phone(writing: Server, name: str, viewport: ViewportSize, scheme: str) -> None:
    """Nothing reaches over the edge, a finger hits every control, and a tap on a word tells its time."""
    touch: dict[str, Any] = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    async with (
        chromium() as browser,
        listening(browser, writing, viewport=viewport, color_scheme=scheme, **touch) as (page, speaker),
    ):
        await speaker.say_all([*SENTENCES[:3], "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamten"])
        await speaker.say(SENTENCES[-1], end=False)
        await expect(paragraphs(page)).to_have_count(5)
        word = page.locator(WORDS).last
        await word.scroll_into_view_if_needed()
        await word.tap()
        await expect(page.get_by_test_id("word-time")).to_be_visible()
        await screenshot(page, f"transcribe-{name}-{scheme}")
        assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert await page.evaluate(looks.TOO_WIDE) == []
        assert await page.evaluate(looks.TOO_SMALL, looks.TOUCH_PX) == []
        await page.get_by_test_id("start").tap()
        await wait_for_state(page, "ended")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground(writing: Server, scheme: str) -> None:
    """In every state; and nothing moves for those who asked for that."""
    async with (
        chromium() as browser,
        listening(browser, writing, viewport=looks.DESKTOP, color_scheme=scheme, reduced_motion="reduce") as (
            page,
            speaker,
        ),
    ):
        await speaker.say_all(SENTENCES[:-1])
        await speaker.say(SENTENCES[-1], end=False)
        await expect(paragraphs(page)).to_have_count(len(SENTENCES))
        assert await page.evaluate("document.getAnimations().length") == 0
        await page.locator(WORDS).nth(20).hover()
        await screenshot(page, f"transcribe-desktop-{scheme}")
        assert await page.evaluate(looks.TOO_WIDE) == []
        for heard in ("listening", "speech", "turn-ended"):
            await page.get_by_test_id("heard").evaluate("(one, heard) => { one.dataset.heard = heard; }", heard)
            contrasts = await page.evaluate(looks.CONTRASTS)
            assert len(contrasts) > 50
            assert [pair for pair in contrasts if pair[1] < looks.CONTRAST] == [], heard


async def test_words_fade_in(writing: Server) -> None:
    """Once: not when their turn ends."""
    async with chromium() as browser, listening(browser, writing) as (page, speaker):
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


async def test_the_view_makes_sense_to_the_ear(writing: Server) -> None:
    """Everything that can be reached has a name, and no two buttons have the same."""
    async with chromium() as browser, listening(browser, writing) as (page, speaker):
        await speaker.say_all(SENTENCES)
        await expect(paragraphs(page)).to_have_count(len(SENTENCES))
        devtools = await page.context.new_cdp_session(page)
        tree = (await devtools.send("Accessibility.getFullAXTree"))["nodes"]
        nodes = [
            (node["role"]["value"], node.get("name", {}).get("value", "").strip(), looks.properties(node))
            for node in tree
            if not node["ignored"]
        ]
        named = {"button", "combobox", "radio", "log", "region", "group", "heading"}
        assert [node for node in nodes if not node[1] and (node[0] in named or node[2].get("focusable"))] == []
        buttons = [name for role, name, _ in nodes if role == "button"]
        assert len(buttons) == len(set(buttons)) >= 6
        await expect(page.get_by_role("group", name="What was said")).to_be_visible()
        await expect(page.get_by_role("combobox", name="Format")).to_be_visible()
