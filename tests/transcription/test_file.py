"""A file through an engine: every word, at its time, by turns; many at a time; nothing kept back when it goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import IO

import numpy as np
import pytest

from lab.inputs.files import encode, file_with
from lab.waiting import until
from rtc_server.config import Settings
from rtc_server.decoding.reader import Decoders
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.errors import EngineFailed, NotAudio, ServerFull
from rtc_server.metrics import Metrics
from rtc_server.transcription.file import Progress, transcribe
from tests.support.scribe import BREAK, Scribe, numbered

SETTINGS = Settings()


@contextlib.asynccontextmanager
async def engine_of(model: Scribe) -> AsyncIterator[EngineClient]:
    engine = EngineClient("transcribe", lambda: LocalLink(lambda: model), Metrics())
    engine.start()
    try:
        await engine.wait_settled()
        yield engine
    finally:
        await engine.close()


async def ignore(_: Progress) -> None:
    pass


@pytest.fixture
async def decoders() -> AsyncIterator[Decoders]:
    made = Decoders()
    yield made
    await made.close()


def file_of(*numbers: int) -> IO[bytes]:
    return file_with(encode(numbered(*numbers)))


async def test_every_word_at_its_time(decoders: Decoders) -> None:
    told: list[Progress] = []

    async def tell(progress: Progress) -> None:
        told.append(progress)

    numbers = range(1, 301)
    async with engine_of(Scribe(1)) as engine:
        transcript = await transcribe(engine, decoders, file_of(*numbers), SETTINGS, tell)
        assert engine.slots_used == 0
    assert transcript.duration_ms == 300 * 80
    assert [word.text for word in transcript.words] == [str(number) for number in numbers]
    assert [word.start_ms for word in transcript.words] == [80 * index for index in range(300)]
    assert tuple(word for progress in told for word in progress.words) == transcript.words
    assert len([progress for progress in told if progress.words]) > 20, "told as they are found"
    heard = [progress.heard_s for progress in told]
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(24.0)
    assert {progress.duration_s for progress in told} == {24.0}


@pytest.mark.parametrize(("heads", "turns"), [(0, ["1 2 3 4", "5"]), (4, ["1 2", "3 4", "5"])])
async def test_turns_are_the_models_or_those_of_silence(decoders: Decoders, heads: int, turns: list[str]) -> None:
    """Without pause heads a turn ends after a second."""
    pause, long_pause = [0] * 6, [0] * 16
    async with engine_of(Scribe(1, heads)) as engine:
        file = file_of(1, 2, *pause, 3, 4, *long_pause, 5)
        transcript = await transcribe(engine, decoders, file, SETTINGS, ignore)
    assert [turn.text for turn in transcript.turns] == turns
    assert (transcript.turns[0].start_ms, transcript.turns[-1].end_ms) == (0, 27 * 80)


async def test_files_at_a_time_are_what_each_is_alone(decoders: Decoders) -> None:
    model, go_on = Scribe(4), asyncio.Event()
    files = [list(range(1 + 100 * number, 60 + 100 * number + 7 * number)) for number in range(4)]

    async def wait(_: Progress) -> None:
        await go_on.wait()

    async with engine_of(model) as engine:
        running = [
            asyncio.create_task(
                transcribe(engine, decoders, file_of(*numbers), SETTINGS, wait), name=f"file-{numbers[0]}"
            )
            for numbers in files
        ]
        await until(lambda: engine.slots_used == 4)
        with pytest.raises(ServerFull):
            await transcribe(engine, decoders, file_of(1), SETTINGS, ignore)
        go_on.set()
        together = await asyncio.gather(*running)
        assert model.most_rows > 1
        alone = [await transcribe(engine, decoders, file_of(*numbers), SETTINGS, ignore) for numbers in files]
    assert together == alone
    assert [[int(word.text) for word in transcript.words] for transcript in together] == files


async def test_what_is_no_audio_takes_no_slot(decoders: Decoders) -> None:
    async with engine_of(Scribe(1, gate=threading.Event())) as engine:
        for data in (b"", b"garbage" * 100):
            with pytest.raises(NotAudio):
                await transcribe(engine, decoders, file_with(data), SETTINGS, ignore)


@pytest.mark.parametrize("how", ["cancelled", "listener"])
async def test_what_is_given_up_gives_its_slot_back(decoders: Decoders, how: str) -> None:
    gate = threading.Event()

    async def tell(_: Progress) -> None:
        if gate.is_set():
            raise ZeroDivisionError

    async with engine_of(Scribe(1, gate=gate)) as engine:
        file = file_of(*range(1, 100))
        running = asyncio.create_task(transcribe(engine, decoders, file, SETTINGS, tell), name="file")
        await until(lambda: engine.slots_used)
        if how == "cancelled":
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            gate.set()
        else:
            gate.set()
            with pytest.raises(ZeroDivisionError):
                await running
        assert engine.slots_used == 0
        file.close()
        assert (await transcribe(engine, decoders, file_of(5), SETTINGS, ignore)).turns[0].text == "5"


async def test_an_engine_that_breaks_is_told_and_the_next_file_works(decoders: Decoders) -> None:
    models = iter([Scribe(1), Scribe(1)])
    engine = EngineClient("transcribe", lambda: LocalLink(lambda: next(models)), Metrics())
    engine.start()
    try:
        await engine.wait_settled()
        with pytest.raises(EngineFailed):
            await transcribe(engine, decoders, file_of(1, 2, BREAK, *[3] * 50), SETTINGS, ignore)
        await until(lambda: engine.ready)
        assert [word.text for word in (await transcribe(engine, decoders, file_of(7), SETTINGS, ignore)).words] == ["7"]
    finally:
        await engine.close()


async def test_a_long_file_goes_through_in_pieces(decoders: Decoders) -> None:
    """With a model that listens to nothing: what is fed is what was in the file, and no more than is asked for."""

    class Deaf(Scribe):
        frames = 0

        def step(self, pcm: np.ndarray, active: np.ndarray) -> list:  # type: ignore[type-arg]
            self.frames += 1
            return super().step(pcm, active)

    seconds = 600
    quiet = encode(np.broadcast_to(np.float32(0), (seconds * 2000,)), "flac", "flac", 2000)
    model = Deaf(1)
    async with engine_of(model) as engine:
        transcript = await transcribe(engine, decoders, file_with(quiet), SETTINGS, ignore)
    assert transcript.duration_ms == seconds * 1000
    assert transcript.words == ()
    assert 0 <= model.frames - seconds * 12.5 < 40
