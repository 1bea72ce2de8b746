"""What the microphone says on its way into a model that wants silence first."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from lab.waiting import until
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from rtc_server.sessions.intake import _MAX_WAITING_FRAMES, Intake
from tests.support.engines import Ear
from tests.support.scribe import DELAY_FRAMES, Scribe, numbered

PREFIX_FRAMES = 13
"""A second and more: three times what an engine takes at once."""


@contextlib.asynccontextmanager
async def hearing(gate: threading.Event) -> AsyncIterator[tuple[Intake, Ear]]:
    ear = Ear()
    engine = EngineClient("transcribe", lambda: LocalLink(lambda: Scribe(1, 0, gate)), Metrics())
    engine.start()
    await engine.wait_settled()
    try:
        stream = await engine.open(ear)
        intake = Intake(stream, PREFIX_FRAMES)
        await intake.prepare()
        yield intake, ear
        stream.close()
        await intake.close()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "intake"]
    finally:
        gate.set()
        await engine.close()


def heard(ear: Ear) -> list[tuple[str, int]]:
    """Each number that was written, and the frame of the stream that it was said in."""
    return [(text.strip(), frame - DELAY_FRAMES) for text, frame in zip(ear.texts, ear.frames, strict=True) if text]


async def test_a_reset_begins_with_silence_again_and_what_comes_meanwhile_waits() -> None:
    """In its order, and none of it twice; of the conversation before, nothing."""
    gate = threading.Event()
    gate.set()
    async with hearing(gate) as (intake, ear):
        gate.clear()
        assert intake.push(numbered(7))
        for _ in range(2):  # the second comes while the first is under way
            intake._stream.reset()
            intake.reset()
            for number in (1, 2):
                assert intake.push(numbered(number))
            await asyncio.sleep(0)
        gate.set()
        await intake.prepared()
        await intake._stream.drained()  # a microphone is slower
        for number in (3, 0, 0):
            assert intake.push(numbered(number))
        await until(lambda: len(heard(ear)) == 3, "three numbers")
        assert heard(ear) == [(str(number), PREFIX_FRAMES + number) for number in (1, 2, 3)]


async def test_what_waits_is_bounded() -> None:
    gate = threading.Event()
    gate.set()
    async with hearing(gate) as (intake, _):
        gate.clear()
        intake._stream.reset()
        intake.reset()
        taken = [intake.push(numbered(1)) for _ in range(_MAX_WAITING_FRAMES + 5)]
        assert taken == [True] * _MAX_WAITING_FRAMES + [False] * 5
