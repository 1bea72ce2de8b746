"""A conversation from its first click to its end: what the visitor does, what the page shows, what the server sees."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from lab.browsers.chromium import (
    call_of,
    chromium,
    hand_over,
    local_url,
    microphones,
    server_status,
    spy_on,
    start_talking,
    visited_page,
    wait_for_events,
    wait_for_sessions,
    wait_for_state,
    watch,
)
from lab.speech.clips import SPEECH_HZ, write_wav
from rtc_server.app import Server
from rtc_server.engine.local import LocalLink
from tests.browser.conftest import IN_A_BROWSER
from tests.conftest import need_commands, server_with
from tests.support.fake_models import CountingModel

pytestmark = IN_A_BROWSER

# A tone would be taken for noise, and removed, unless the browser leaves the microphone as it is.
RAW = "?raw=1"
AUDIBLE_DBFS = -40

_STATS = "window.__voice.events.filter(({ type, detail }) => type === 'message' && detail.type === 'stats')"


@pytest.fixture
def tone_file(tmp_path: Path) -> Path:
    """A tone without an end, for it is played over and over: 440 Hz, a quarter of full scale."""
    need_commands("chromium")
    seconds = np.arange(SPEECH_HZ) / SPEECH_HZ
    return write_wav(tmp_path / "tone.wav", (0.25 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32))


async def spied_on(page: Page, server: Server, query: str = "") -> None:
    """Open the page with the spy in it."""
    await spy_on(page)
    await page.goto(local_url(server, query))


async def server_hears(page: Page, condition: str) -> None:
    """Until the server's last two ``stats`` say so: ``condition`` is JavaScript on ``dbfs``."""
    await page.wait_for_function(
        f"() => {{ const last = {_STATS}.slice(-2); return last.length === 2"
        f" && last.every(({{ detail }}) => {{ const dbfs = detail.level_in_dbfs; return {condition}; }}); }}",
        timeout=30_000,
    )


async def focus_by_tab(page: Page, wanted: Locator) -> None:
    """Press Tab until the focus is there, as a user without a mouse does."""
    for _ in range(15):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError("Tab does not lead there")


async def paragraphs(page: Page) -> list[str]:
    return await page.get_by_test_id("transcript").locator("p").all_inner_texts()


async def test_a_conversation_by_mouse(browser: Browser, server: Server) -> None:
    """End gives the place back, switches the microphone off and stills the meters; then another can begin."""
    async with visited_page(browser, "about:blank") as page:
        await spied_on(page, server)
        button = page.get_by_test_id("start")
        await expect(page.get_by_test_id("state")).to_have_text("Idle")
        for _ in range(2):
            await start_talking(page)
            await expect(button).to_have_text("End")
            await expect(page).to_have_title(re.compile(r"(Listening|Speaking) – Voice"))
            await wait_for_sessions(server, 1)
            await page.wait_for_selector("[data-testid=meter-voice]:not([aria-valuenow='0'])")
            await button.click()
            await wait_for_state(page, "ended")
            assert set(await microphones(page)) == {"ended"}
            await wait_for_sessions(server, 0)
            await expect(button).to_have_text("Start talking")
            await expect(page).to_have_title("Voice")
            await expect(page.get_by_test_id("state-detail")).to_have_text("You ended the conversation.")
            for meter in ("meter-mic", "meter-voice"):
                await expect(page.get_by_test_id(meter)).to_have_attribute("aria-valuenow", "0")
            for figure in ("delay", "rtt", "loss-in", "loss-out"):
                await expect(page.get_by_test_id(figure)).to_have_text("–")
        assert await microphones(page) == ["ended", "ended"]
        assert (await server_status(server))["draining"] is False


async def test_a_conversation_by_keyboard(browser: Browser, server: Server) -> None:
    """Tab finds the controls, Enter presses them, M mutes, Escape ends; and the focus is never lost."""
    async with visited_page(browser, local_url(server)) as page:
        button, mute = page.get_by_test_id("start"), page.get_by_test_id("mute")
        await focus_by_tab(page, button)
        await page.keyboard.press("Enter")
        await wait_for_state(page, "listening", "speaking")
        await expect(button).to_be_focused()

        await page.keyboard.press("m")
        await expect(mute).to_have_attribute("aria-pressed", "true")
        await expect(page.get_by_test_id("state-detail")).to_contain_text("muted")
        await focus_by_tab(page, mute)
        await page.keyboard.press("Space")
        await expect(mute).to_have_attribute("aria-pressed", "false")

        await page.keyboard.press("Escape")
        await wait_for_state(page, "ended")
        await wait_for_sessions(server, 0)
        # The button with the focus means nothing any more; it keeps the focus all the same.
        await expect(mute).to_be_disabled()
        await expect(mute).to_be_focused()
        for key in ("m", "Escape", "Enter"):
            await page.keyboard.press(key)
        await expect(mute).to_have_attribute("aria-pressed", "false")
        await page.keyboard.press("Shift+Tab")
        await expect(button).to_be_focused()
        await page.keyboard.press("Enter")
        await wait_for_state(page, "listening", "speaking")
        await page.keyboard.press("Enter")
        await wait_for_state(page, "ended")


async def test_letters_in_the_list_of_microphones_do_not_mute(browser: Browser, server: Server) -> None:
    """M is also the first letter of a name in a list."""
    async with visited_page(browser, local_url(server)) as page:
        await start_talking(page)
        await page.get_by_test_id("mic-select").focus()
        await page.keyboard.press("m")
        await page.keyboard.press("Escape")
        await expect(page.get_by_test_id("mute")).to_have_attribute("aria-pressed", "false")
        assert await page.evaluate("window.__voice.state") in ("listening", "speaking")


@pytest.mark.parametrize("leaving", ["reload", "close", "elsewhere"])
async def test_a_page_that_goes_away_gives_its_place_back(browser: Browser, server: Server, leaving: str) -> None:
    """At once, not when the server has noticed and waited for its return: that would take it half a minute."""
    async with visited_page(browser, local_url(server)) as page:
        await start_talking(page)
        await wait_for_sessions(server, 1)
        if leaving == "reload":
            await page.reload()
            await expect(page.get_by_test_id("state")).to_have_text("Idle")
        elif leaving == "elsewhere":
            await page.goto("about:blank")
        else:
            await page.close()
        await wait_for_sessions(server, 0)


async def test_a_click_too_soon_ends_what_has_hardly_begun(browser: Browser, server: Server) -> None:
    """End while the server is still answering: nothing is left behind, on either side."""
    async with visited_page(browser, "about:blank") as page:
        await spied_on(page, server)
        button = page.get_by_test_id("start")
        for event in ("state", "phase"):
            await button.click()
            await wait_for_events(page, event)
            await button.click()
            await wait_for_state(page, "ended")
        async with page.expect_response("**/api/offer"):
            await button.click()
        await button.click()
        await wait_for_state(page, "ended")
        await wait_for_sessions(server, 0)
        await page.wait_for_function("() => spied.tracks.every((track) => track.readyState === 'ended')")
        await start_talking(page)


async def test_muted_means_silence_at_the_server(server: Server, tone_file: Path) -> None:
    """And the word for the state follows the voice, which is an echo here: it stops, and comes again."""
    async with chromium(tone_file) as browser, visited_page(browser, local_url(server, RAW)) as page:
        await start_talking(page)
        await wait_for_state(page, "speaking")
        await expect(page.get_by_test_id("state")).to_have_text("Speaking")
        await server_hears(page, f"dbfs > {AUDIBLE_DBFS}")
        await page.keyboard.press("m")
        await wait_for_state(page, "listening")
        await expect(page.get_by_test_id("state")).to_have_text("Listening")
        await server_hears(page, "dbfs <= -99")
        await expect(page.locator("#meter-mic-label")).to_have_text("You (muted)")
        await expect(page.get_by_test_id("meter-mic")).to_have_attribute("aria-valuenow", "0")
        await expect(page.get_by_test_id("silence")).to_be_empty()
        await page.keyboard.press("m")
        await wait_for_state(page, "speaking")
        await server_hears(page, f"dbfs > {AUDIBLE_DBFS}")


async def test_meters_move_and_figures_are_numbers(server: Server, tone_file: Path) -> None:
    async with chromium(tone_file) as browser, visited_page(browser, local_url(server, RAW)) as page:
        for meter in ("meter-mic", "meter-voice"):
            await expect(page.get_by_test_id(meter)).to_have_attribute("aria-valuenow", "0")
        await start_talking(page)
        for meter in ("meter-mic", "meter-voice"):
            # -15 dBFS on a scale that begins at -60.
            await expect(page.get_by_test_id(meter)).to_have_attribute("aria-valuenow", re.compile(r"7\d"))
            await expect(page.get_by_test_id(meter)).to_have_attribute("aria-valuetext", "clear")
        for figure in ("delay", "rtt"):
            await expect(page.get_by_test_id(figure)).to_have_text(re.compile(r"^\d+ ms$"))
        for figure in ("loss-in", "loss-out"):
            await expect(page.get_by_test_id(figure)).to_have_text(re.compile(r"^\d+\.\d %$"))
        await page.get_by_text("What the delay is made of").click()
        shown = [await page.locator(f"#part-{part}").inner_text() for part in ("frame", "network", "engine")]
        assert all(re.fullmatch(r"\d+ ms", text) for text in shown), shown


async def test_two_pages_talk_each_for_itself(browser: Browser, server: Server) -> None:
    async with (
        visited_page(browser, local_url(server)) as one,
        visited_page(browser, local_url(server)) as other,
    ):
        await start_talking(one)
        await start_talking(other)
        ids = [await page.evaluate("window.__voice.sessionId") for page in (one, other)]
        assert ids[0] != ids[1]
        await wait_for_sessions(server, 2)
        await one.get_by_test_id("start").click()
        await wait_for_sessions(server, 1)
        assert await call_of(other, server)
        seen = await other.evaluate(f"{_STATS}.length")
        await other.wait_for_function(f"() => {_STATS}.length > {seen}")
        assert await other.evaluate("window.__voice.state") in ("listening", "speaking")


async def test_another_microphone_in_mid_conversation(browser: Browser, server: Server) -> None:
    """The session goes on with it, the one before is switched off, and the choice outlives the visit."""
    async with visited_page(browser, "about:blank") as page:
        await spied_on(page, server)
        await start_talking(page)
        session = await page.evaluate("window.__voice.sessionId")
        choices = page.get_by_test_id("mic-select")
        await expect(choices.locator("option")).not_to_have_count(1)
        name = await choices.locator("option").nth(1).inner_text()
        await choices.select_option(index=1)
        await page.wait_for_function("() => spied.tracks.length === 2")
        await page.wait_for_function(
            "() => spied.tracks[0].readyState === 'ended' && spied.tracks[1].readyState === 'live'"
        )
        await page.wait_for_function("() => window.__voice.pc.getSenders()[0].track === spied.tracks[1]")
        assert await page.evaluate("window.__voice.sessionId") == session
        await page.reload()
        await expect(choices.locator("option:checked")).to_have_text(name)


async def test_a_new_conversation_begins_a_new_paragraph(browser: Browser) -> None:
    """In the same session: the model, which counts, forgets; what it said before stays to be read."""
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server,
        visited_page(browser, local_url(server)) as page,
    ):
        await start_talking(page)
        session = await page.evaluate("window.__voice.sessionId")
        for count in (1, 2):
            await page.wait_for_function(
                "(count) => window.__voice.transcript.split('\\n\\n')"
                ".filter((paragraph) => paragraph.split(' ').length > 3).length === count",
                arg=count,
            )
            assert [paragraph.split()[:3] for paragraph in await paragraphs(page)] == [["1", "2", "3"]] * count
            before = (await paragraphs(page))[0]
            if count == 1:
                await page.get_by_test_id("reset").click()
                await expect(page.locator("#announce")).to_have_text("A new conversation begins.")
        # Words that were under way when the button was pressed may still have come; none was lost.
        assert (await paragraphs(page))[0].startswith(before)
        assert await page.evaluate("window.__voice.sessionId") == session
        await page.get_by_test_id("start").click()
        await wait_for_state(page, "ended")
        assert len(await paragraphs(page)) == 2


async def test_words_are_text_whatever_they_say(browser: Browser, server: Server) -> None:
    """A model may write what looks like HTML, and the page must not take it for such."""
    delta = " <img src=x onerror='window.fooled = true'><b>bold</b> &amp; <script>window.fooled = true</script>"
    async with visited_page(browser, "about:blank") as page:
        await spied_on(page, server)
        await start_talking(page)
        await wait_for_events(page, "message")
        await hand_over(page, json.dumps({"type": "text", "time_ms": 1, "delta": delta}))
        transcript = page.get_by_test_id("transcript")
        await expect(transcript.locator("p")).to_have_text(delta)
        assert await transcript.locator("p *").count() == 0
        assert await page.evaluate("window.fooled") is None


async def test_messages_out_of_the_ordinary_are_passed_over(browser: Browser, server: Server) -> None:
    """What a newer server, or a broken one, may send leaves the conversation as it is."""
    messages = ["no JSON", "null", "[]", '"text"', "7", '{"type": 7}', '{"type": "news"}']
    messages += ['{"type": "text"}', '{"type": "text", "delta": {}}', '{"type": "state", "state": "dancing"}']
    async with visited_page(browser, "about:blank") as page:
        await spied_on(page, server)
        await start_talking(page)
        await hand_over(page, *messages)
        await expect(page.get_by_test_id("transcript")).to_be_empty()
        await page.wait_for_function(f"() => {_STATS}.length > 0")
        assert await page.evaluate("window.__voice.state") in ("listening", "speaking")


async def test_the_page_keeps_to_the_servers_policy(browser: Browser, server: Server) -> None:
    """A whole conversation under the real headers, with every part of the page used: no violation, no complaint."""
    async with await browser.new_context() as context:
        page = await _page_that_may_copy(context)
        complaints = watch(page)
        await spy_on(page)
        response = await page.goto(local_url(server))
        assert response is not None
        assert "default-src 'none'" in response.headers["content-security-policy"]
        await page.get_by_role("button", name="Copy").click()
        await page.wait_for_selector("button:text-is('Copied')")  # for two seconds
        await start_talking(page)
        await wait_for_events(page, "figures", 2)
        for control in ("mute", "reset", "start"):
            await page.get_by_test_id(control).click()
        await wait_for_state(page, "ended")
        assert await page.evaluate("spied.violations") == []
    assert complaints == []


async def _page_that_may_copy(context: BrowserContext) -> Page:
    await context.grant_permissions(["clipboard-read", "clipboard-write", "microphone"])
    return await context.new_page()
