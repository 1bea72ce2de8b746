"""A translator answers each utterance with its translation or a typed error, whatever becomes of its process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from lab.waiting import until
from rtc_server.errors import (
    EngineFailed,
    EngineUnavailable,
    ModelLoadError,
    Overloaded,
    TranslationFailed,
    TranslationLate,
    UnsupportedPair,
    UtteranceTooLong,
)
from rtc_server.translation.client import Translator
from rtc_server.translation.model import Translation, Utterance
from tests.support.translators import count, fake, running


def said(text: str, voice: int = 0, speak: bool = True) -> Utterance:
    return Utterance("en", "pt", text, voice=voice, speak=speak)


async def outcome(translator: Translator, utterance: Utterance, deadline_s: float = 30.0) -> object:
    """The translation's text, or the error's code."""
    try:
        return (await translator.translate(utterance, deadline_s)).text
    except (TranslationFailed, TranslationLate, EngineFailed, EngineUnavailable, Overloaded) as error:
        return error.code


async def test_text_comes_back_with_a_voice_if_one_is_wanted() -> None:
    async with running(fake()) as translator:
        spoken = await translator.translate(said("abc", voice=7))
        assert (spoken.text, spoken.original) == ("cba", "abc")
        assert spoken.pcm is not None
        np.testing.assert_allclose(spoken.pcm, np.full(24, 0.07, np.float32))
        assert spoken.pcm.dtype == np.float32
        assert await translator.translate(said("abc", speak=False)) == Translation("cba", "abc", None)
        assert count(translator._metrics, "rtc_translations_total", outcome="done") == 2
        assert count(translator._metrics, "rtc_translation_seconds_count") == 2


async def test_a_language_without_a_voice_has_none() -> None:
    async with running(fake()) as translator:
        assert (await translator.translate(Utterance("en", "de", "abc"))).pcm is None
        assert await translator.translate(Utterance("de", "de", "abc")) == Translation("abc", "abc", None)


async def test_sound_goes_to_a_model_that_hears_the_language() -> None:
    """Finite, and within bounds; and to no other: there the words have to be known."""
    pcm = np.full(24_000, 7.0, np.float32)
    pcm[5] = np.nan
    async with running(fake()) as translator:
        assert (await translator.translate(Utterance("de", "en", pcm=pcm))).text == "24000 1.00"
        assert (await translator.translate(Utterance("en", "pt", "abc", pcm))).text == "cba"
        with pytest.raises(UnsupportedPair):
            await translator.translate(Utterance("en", "pt", pcm=pcm))


async def test_what_is_too_long_or_unknown_is_refused_before_it_is_sent() -> None:
    async with running(fake()) as translator:
        for utterance, error in (
            (said("x" * 2001), UtteranceTooLong),
            (Utterance("de", "en", pcm=np.zeros(30 * 24_000 + 1, np.float32)), UtteranceTooLong),
            (Utterance("en", "fr", "hello"), UnsupportedPair),
            (Utterance("", "en", "hello"), UnsupportedPair),
        ):
            with pytest.raises(error):
                await translator.translate(utterance)
        assert translator._last_number == 0
        assert (await translator.translate(said("x" * 2000))).text == "x" * 2000


async def test_nothing_said_is_nothing_translated() -> None:
    async with running(fake()) as translator:
        assert await translator.translate(said(" \n")) == Translation("", "", None)
        assert translator._last_number == 0


async def test_what_no_message_can_hold_harms_none() -> None:
    async with running(fake()) as translator:
        assert (await translator.translate(said("a\ud800b", voice=1 << 200))).text == "b?a"
        assert (await translator.translate(said("abc", voice=-1))).text == "cba"


async def test_one_that_fails_costs_none_beside_it() -> None:
    """Also if it breaks the whole batch."""
    async with running(fake()) as translator:
        texts = ("sleep", "a", "raise", "refuse", "b", "short", "c")
        got = await asyncio.gather(*(outcome(translator, said(text)) for text in texts))
        assert got == ["peels", "a", "translation_failed", "translation_failed", "b", "translation_failed", "c"]
        assert count(translator._metrics, "rtc_translations_total", outcome="translation_failed") == 3


async def test_what_waits_for_the_same_languages_shares_a_batch(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with running(fake(batch=4)) as translator:
        utterances = (said(f"wait {go}"), Utterance("en", "de", "batch"), *(said("batch") for _ in range(5)))
        asked = [asyncio.create_task(outcome(translator, utterance)) for utterance in utterances]
        await until(lambda: translator.waiting == 7)
        assert await outcome(translator, said("abc"), 0.0) == "translation_late"
        await until(lambda: translator.waiting == 7, "its answer: all that was asked before it is there")
        go.touch()
        assert (await asyncio.gather(*asked))[1:] == ["1", "4", "4", "4", "4", "1"]


async def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with running(fake(queue=2)) as translator:
        first = [asyncio.create_task(outcome(translator, said(f"wait {go}"))) for _ in range(2)]
        await until(lambda: translator.waiting == 2)
        assert count(translator._metrics, "rtc_translations_waiting") == 2
        with pytest.raises(Overloaded):
            await translator.translate(said("abc"))
        go.touch()
        assert await asyncio.gather(*first) == [f"wait {go}"[::-1]] * 2
        assert (await translator.translate(said("abc"))).text == "cba"


@pytest.mark.slow
async def test_one_that_misses_its_deadline_is_not_computed() -> None:
    """And gives its place back at once; one that computes keeps it, for the process is still at it."""
    async with running(fake(batch=1)) as translator:
        hangs = asyncio.create_task(outcome(translator, said("hang"), 2.0))  # by then the process is at it
        await until(lambda: translator.waiting == 1)
        assert await outcome(translator, said("abc"), 0.1) == "translation_late"
        assert await hangs == "translation_late"
        await until(lambda: translator.waiting == 1)
        assert count(translator._metrics, "rtc_translations_total", outcome="translation_late") == 2


@pytest.mark.slow
async def test_a_caller_that_goes_takes_its_utterance_along() -> None:
    async with running(fake(batch=1)) as translator:
        hangs = asyncio.create_task(outcome(translator, said("hang"), 60.0))
        waits = asyncio.create_task(outcome(translator, said("abc"), 60.0))
        await until(lambda: translator.waiting == 2)
        waits.cancel()
        await until(lambda: translator.waiting == 1)
        hangs.cancel()
        await asyncio.gather(waits, hangs, return_exceptions=True)


async def test_a_pair_that_hangs_stops_no_other() -> None:
    async with running(fake(batch=1, at_once=2)) as translator:
        hanging = [asyncio.create_task(outcome(translator, said("hang"), 60.0)) for _ in range(3)]
        await until(lambda: translator.waiting == 3)
        assert await outcome(translator, Utterance("pt", "en", "abc")) == "cba"
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_process_that_is_killed_fails_what_is_in_it_and_comes_back() -> None:
    async with running(fake()) as translator:
        waiting = asyncio.create_task(outcome(translator, said("hang"), 60.0))
        await until(lambda: translator.waiting)
        assert translator.pid is not None
        os.kill(translator.pid, signal.SIGKILL)
        assert await waiting == "engine_failed"
        assert await outcome(translator, said("abc")) == "engine_unavailable"
        await translator.wait_ready()
        assert await outcome(translator, said("abc")) == "cba"
        assert translator.restarts == 1


async def test_a_ctrl_c_in_the_terminal_is_not_the_translators_to_handle() -> None:
    async with running(fake()) as translator:
        assert translator.pid is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(translator.pid, number)
        assert await outcome(translator, said("abc")) == "cba"
        assert translator.restarts == 0


async def test_a_translator_is_not_ready_before_it_is_loaded() -> None:
    translator = fake()
    translator.start()
    assert translator.info is None
    assert await outcome(translator, said("abc")) == "engine_unavailable"
    await translator.wait_settled()
    assert translator.ready
    assert translator.info is not None
    await translator.close()
    assert await outcome(translator, said("abc")) == "engine_unavailable"


async def test_what_cannot_be_loaded_says_why_once() -> None:
    translator = fake(factory="unloadable")
    translator.start()
    with pytest.raises(ModelLoadError, match="no such translator") as caught:
        await translator.wait_settled()
    assert caught.value.hint == "Check the name."
    await translator.close()
    assert translator.restarts == 0


async def test_a_close_fails_what_still_waits() -> None:
    translator = fake()
    async with running(translator):
        waiting = asyncio.create_task(outcome(translator, said("hang"), 60.0))
        await until(lambda: translator.waiting)
    assert await waiting == "engine_unavailable"
    await translator.close()
