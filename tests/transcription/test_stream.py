"""A stream that is fed as fast as the engine takes it loses nothing, and ends with its last word."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from rtc_server import audio
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.errors import EngineFailed, ServerFull
from rtc_server.metrics import Metrics
from rtc_server.transcription.stream import Heard, Step, Transcriber
from rtc_server.transcription.words import Word
from tests.support.parrot import BREAK, Parrot, numbered


@contextlib.asynccontextmanager
async def parrot(slots: int = 1) -> AsyncIterator[EngineClient]:
    engine = EngineClient("transcribe", lambda: LocalLink(lambda: Parrot(slots)), Metrics())
    engine.start()
    try:
        await engine.wait_settled()
        yield engine
    finally:
        await engine.close()


def words(heard: list[Heard]) -> list[Word]:
    return [each for each in heard if isinstance(each, Word)]


@pytest.mark.parametrize("block", [audio.FRAME_SAMPLES, 100, 7000, 200 * audio.FRAME_SAMPLES])
async def test_every_frame_is_heard_and_has_its_time(block: int) -> None:
    heard: list[Heard] = []
    pcm = numbered(200)
    async with parrot() as engine, Transcriber(engine, heard.append, 0.5) as transcriber:
        for start in range(0, pcm.size, block):
            await transcriber.feed(pcm[start : start + block])
        await transcriber.finish()
        assert engine.slots_used == 1
    assert [word.text for word in words(heard)] == [str(n) for n in range(1, 201)]
    assert [word.start_s for word in words(heard)] == pytest.approx([n * 0.08 for n in range(200)])
    steps = [each.frame for each in heard if isinstance(each, Step)]
    assert steps == list(range(1, len(steps) + 1))


async def test_a_rest_that_fills_no_frame_is_heard() -> None:
    heard: list[Heard] = []
    async with parrot() as engine, Transcriber(engine, heard.append, 0.5) as transcriber:
        await transcriber.feed(numbered(1)[:10])
        await transcriber.finish()
    assert [word.text for word in words(heard)] == ["1"]


async def test_without_a_prefix_times_are_the_same() -> None:
    """The audio has one of its own, which is counted."""
    heard: list[Heard] = []
    async with parrot() as engine, Transcriber(engine, heard.append, 0.5, prefix=False) as transcriber:
        await transcriber.feed(numbered(3))
        await transcriber.finish()
    assert [word.start_s for word in words(heard)] == pytest.approx([0.0, 0.08, 0.16])


async def test_an_engine_that_breaks_is_told() -> None:
    async with parrot() as engine, Transcriber(engine, lambda _: None, 0.5) as transcriber:
        bad = numbered(1)
        bad[0] = BREAK
        await transcriber.feed(bad)
        with pytest.raises(EngineFailed):
            await transcriber.finish()


async def test_slots_are_given_back() -> None:
    async with parrot() as engine:
        for _ in range(3):
            async with Transcriber(engine, lambda _: None, 0.5) as transcriber:
                with pytest.raises(ServerFull):
                    await Transcriber(engine, lambda _: None, 0.5).__aenter__()
                await transcriber.feed(numbered(1))
        assert engine.slots_used == 0
