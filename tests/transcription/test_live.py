"""What is said to a session, while the engine that hears for it comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from lab.waiting import until
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import FloatArray, ModelInfo, RowOutput, ServiceKind
from rtc_server.metrics import Metrics
from rtc_server.protocols import events
from rtc_server.transcription.live import Hearing
from tests.support.fake_models import MAGIC, FaultyModel

DIALOGUE = ModelInfo("fake", ServiceKind.DIALOGUE, 1, "cpu", speaks=True, writes=True)


class Detector(FaultyModel):
    """Takes what is loud for speech, and breaks where it hears :data:`MAGIC` first."""

    def _row(self, row: int, pcm: FloatArray) -> RowOutput:
        return RowOutput(pauses=(float(abs(pcm[-1]) < 0.1),))


def frame(level: float, first: float = 0.0) -> FloatArray:
    pcm = np.full(FRAME_SAMPLES, level, np.float32)
    pcm[0] = first
    return pcm


class Session:
    """A hearing, the detector behind it, and what has been told."""

    def __init__(self) -> None:
        self.detector = EngineClient("vad", lambda: LocalLink(lambda: Detector(1)), Metrics())
        self.told: list[events.ServerEvent] = []
        self.hearing = Hearing(DIALOGUE, Settings(vad_hangover_ms=2 * FRAME_MS), self.told.append)

    async def hear(self, *pcm: FloatArray) -> None:
        """One frame after the other, each answered."""
        for each in pcm:
            self.hearing.on_frame(each)
            stream = self.hearing._stream
            await until(lambda stream=stream: stream is None or not stream.in_flight)

    async def break_detector(self) -> None:
        restarts = self.detector.restarts
        self.hearing.on_frame(frame(0.0, MAGIC))
        await until(lambda: self.detector.restarts > restarts)

    async def until_heard_again(self) -> None:
        await until(lambda: self.hearing._stream is not None)


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[Session]:
    made = Session()
    try:
        yield made
    finally:
        await made.hearing.close()
        await made.detector.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "detector-reopen"]


@pytest.fixture(autouse=True)
def no_restart_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.supervisor._RESTART_PAUSES_S", (0.01,))


async def test_a_detector_that_restarts_is_taken_again_and_time_goes_on() -> None:
    """Times are in the microphone's audio, those of the frames that were not heard included."""
    async with session() as one:
        one.detector.start()
        await one.detector.wait_settled()
        await one.hearing.open(one.detector)
        await one.hear(frame(0.5), frame(0.5), frame(0.5))
        assert one.told == [events.SpeechStarted(0)]
        await one.break_detector()  # frame 4
        await one.until_heard_again()
        await one.hear(frame(0.0), frame(0.0), frame(0.0))
        assert one.told[1:] == [events.SpeechEnded(3 * FRAME_MS)]
        await one.hear(frame(0.5), frame(0.5))
        assert one.told[2:] == [events.SpeechStarted(7 * FRAME_MS)]


async def test_a_detector_that_restarts_twice_is_taken_again_twice() -> None:
    async with session() as one:
        one.detector.start()
        await one.detector.wait_settled()
        await one.hearing.open(one.detector)
        for _ in range(2):
            await one.break_detector()
            await one.until_heard_again()
        one.hearing.reset()
        await one.hear(frame(0.5), frame(0.5))
        assert one.told == [events.SpeechStarted(0)]


async def test_a_session_that_opens_while_the_detector_loads_hears_when_it_has() -> None:
    async with session() as one:
        await one.hearing.open(one.detector)
        await one.hear(frame(0.5), frame(0.5))
        one.detector.start()
        await one.until_heard_again()
        await one.hear(frame(0.5), frame(0.5))
        assert one.told == [events.SpeechStarted(2 * FRAME_MS)]


async def test_a_session_that_ends_meanwhile_takes_nothing() -> None:
    async with session() as one:
        await one.hearing.open(one.detector)
        await one.hearing.close()
        one.detector.start()
        await one.detector.wait_settled()
        assert one.detector.slots_used == 0
