"""Captions of a user who pauses: the model hears silence ahead of the microphone, and no word waits for its delay."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest

from lab.waiting import until
from rtc_server.audio import FRAME_MS
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from rtc_server.protocols import events
from rtc_server.sessions.captioner import Captioner
from rtc_server.sessions.captions import Captions
from rtc_server.system.loop_lag import LoopLag
from tests.support.scribe import BREAK, Scribe, numbered

Told = events.ServerEvent | events.WordsComplete


class Microphone:
    """Of one conversation, whose captions hear only what a test says: there is no real time."""

    def __init__(self, captioner: Captioner) -> None:
        self.told: list[Told] = []
        self.captions = Captions(captioner, True, self.told.append, "test")
        self.frames = 0

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.captions.on_frame(numbered(number))
            self.frames += 1

    def pause(self) -> None:
        self.captions.on_pause(self.frames * FRAME_MS)

    async def until_through(self) -> None:
        """Until the silence has gone to the model, and what was held behind it."""
        await until(lambda: self.captions._ahead is None)

    @property
    def words(self) -> list[tuple[str, int]]:
        """Each with the frame of the microphone in which it begins."""
        return [(each.text, each.start_ms // FRAME_MS) for each in self.told if isinstance(each, events.Word)]

    @property
    def complete(self) -> list[int]:
        """Until which frames all words were said to be there."""
        return [each.until_ms // FRAME_MS for each in self.told if isinstance(each, events.WordsComplete)]

    async def until_words(self, *words: tuple[str, int]) -> None:
        await until(lambda: self.words == list(words), f"{words}, not {self.words}")


@contextlib.asynccontextmanager
async def microphone(gate: threading.Event | None = None) -> AsyncIterator[Microphone]:
    """One whose captions are on. They give back what they took."""
    metrics, settings = Metrics(), Settings(model="echo")
    engine = EngineClient("transcribe", lambda: LocalLink(lambda: Scribe(1, 0, gate)), metrics)
    engine.start()
    await engine.wait_settled()
    try:
        lag = LoopLag(settings.max_lag_ms, metrics)
        heard = Microphone(Captioner(engine, [], settings, lag.window, metrics))
        heard.captions.look(0.0)
        await until(lambda: heard.captions.on, "the model's prefix")
        yield heard
        await heard.captions.close()
        assert engine.slots_used == 0
        await until(lambda: not [each for each in asyncio.all_tasks() if each.get_name().startswith("captions-")])
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def of_a_model_that_hangs() -> AsyncIterator[tuple[Microphone, threading.Event]]:
    """One that paused behind its first word: the model takes nothing until the event is set."""
    gate = threading.Event()
    gate.set()
    async with microphone(gate) as heard:
        gate.clear()
        heard.say(1)
        heard.pause()
        yield heard, gate


async def test_a_pause_brings_out_what_was_said_before_it() -> None:
    async with microphone() as heard:
        heard.say(5, 6)
        heard.pause()
        await heard.until_words(("5", 0), ("6", 1))
        await until(lambda: heard.complete)
        assert heard.told[-1] == events.WordsComplete(2 * FRAME_MS), "after the last of them"


async def test_what_is_said_after_a_pause_stands_where_it_was_said() -> None:
    """However often silence was put in: of the microphone it is none."""
    async with microphone() as heard:
        expected = []
        for number in range(1, 31, 3):
            expected += [(str(number + each), heard.frames + each) for each in range(3)]
            heard.say(number)
            heard.say(number + 1, number + 2)
            heard.pause()
            await heard.until_words(*expected)
            await until(lambda: heard.complete[-1:] == [heard.frames])
            await heard.until_through()


async def test_what_the_microphone_hears_meanwhile_follows_the_silence() -> None:
    async with microphone() as heard:
        heard.say(1)
        heard.pause()
        heard.say(2, 3)
        heard.pause()
        await heard.until_through()
        await until(lambda: heard.complete)
        assert heard.complete == [1], "a pause that comes before the first is through waits for the microphone"
        heard.pause()
        await heard.until_words(("1", 0), ("2", 1), ("3", 2))
        await until(lambda: heard.complete == [1, 3])


async def test_a_model_that_hangs_holds_two_seconds_and_no_more() -> None:
    async with of_a_model_that_hangs() as (heard, gate):
        heard.say(*range(2, 102))
        assert len(heard.captions._held) == 25
        gate.set()
        await heard.until_through()
        heard.pause()
        await until(lambda: heard.complete == [1, heard.frames])
        assert [text for text, _ in heard.words] == ["1", *map(str, range(77, 102))]


async def test_a_new_conversation_knows_nothing_of_the_silence() -> None:
    async with microphone() as heard:
        heard.say(1)
        heard.pause()
        heard.say(2)
        heard.captions.reset()
        heard.frames = 0
        await until(lambda: heard.captions.on, "the model's prefix")
        heard.say(3)
        heard.pause()
        await until(lambda: heard.complete)
        assert (heard.complete, heard.words[-1]) == ([1], ("3", 0))


async def test_an_engine_that_breaks_ends_it() -> None:
    async with microphone() as heard:
        heard.say(BREAK)
        heard.pause()
        await until(lambda: events.Captions("off", "engine_unavailable") in heard.told)
        heard.pause()
        heard.say(1)
        assert not heard.captions.on


async def test_the_last_words_of_a_conversation_wait_for_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.sessions.captions._LAST_WORDS_S", 20.0)
    async with microphone() as heard:
        heard.say(1)
        heard.pause()
        heard.say(2)
        await heard.captions.finish()
        assert heard.words == [("1", 0), ("2", 1)]


async def test_a_new_conversation_that_begins_while_the_last_words_are_waited_for_ends_nothing_else() -> None:
    """What it cancels was waited for by the end of the session, which was cancelled with it, and left all as it was."""
    async with of_a_model_that_hangs() as (heard, gate):
        ending = asyncio.create_task(heard.captions.finish(), name="end")
        await asyncio.sleep(0)
        assert heard.captions._ahead is not None, "silence that waits for the model"
        heard.captions.reset()
        gate.set()
        await ending


@pytest.mark.parametrize(("step_ms", "hurries"), [(None, True), (40.0, True), (40.1, False)])
def test_a_model_that_is_slow_is_given_no_more_to_do(step_ms: float | None, hurries: bool) -> None:
    metrics, settings = Metrics(), Settings(model="echo")
    engine = cast("Engine", SimpleNamespace(step_p50_ms=step_ms, slots_used=1, ready=True, has_room=True))
    captioner = Captioner(engine, [], settings, LoopLag(settings.max_lag_ms, metrics).window, metrics)
    assert captioner.hurries is hurries
