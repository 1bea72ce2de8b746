"""What becomes of a user's audio: what the model gets, what is told of it, and how it comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Literal

import numpy as np
import pytest

from rtc_server.audio import FRAME_MS, FRAME_SAMPLES
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.model import FloatArray, ModelInfo, RowOutput, ServiceKind, StreamingModel
from rtc_server.engine.stream import EngineStream, StreamOutput
from rtc_server.errors import ServerError
from rtc_server.protocols import events
from rtc_server.sessions.stats import SessionStats
from rtc_server.sessions.user_audio import UserAudio
from tests.support.engines import local
from tests.support.fake_models import CountingModel, GatedModel
from tests.support.scribe import PREFIX_FRAMES, Scribe, numbered

FRAME_S = FRAME_MS / 1000


class Detector(CountingModel):
    """Takes what is loud for speech."""

    def _row(self, row: int, pcm: FloatArray) -> RowOutput:
        return RowOutput(pauses=(float(abs(pcm[-1]) < 0.1),))


class Talk:
    """A model, its user's audio, and what comes out."""

    def __init__(self, engine: EngineClient) -> None:
        self.engine = engine
        self.told: list[events.ServerEvent | events.WordsComplete] = []
        self.began_to_speak: list[int] = []
        self.outputs: list[StreamOutput] = []
        self.stats = SessionStats()
        self.now = 0.0
        self.audio = UserAudio(self.stats, self.told.append, self.began_to_speak.append, self.now)
        self.stream: EngineStream

    async def open(self, detector: EngineClient | None = None, settings: Settings | None = None) -> None:
        self.stream = await self.engine.open(self)
        await self.audio.open(self.stream, self.engine.info, settings or Settings(), detector)
        await self.stream.drained()

    def say(self, pcm: FloatArray) -> None:
        """A frame, in real time."""
        self.audio.push(pcm, self.now)
        self.now += FRAME_S

    async def hear(self, *levels: float) -> None:
        """A frame of each level, one after the other, each answered by the model and by the detector."""
        for level in levels:
            self.say(loud(level))
            await self.stream.drained()
            hearing = self.audio._hearing
            heard_by = None if hearing is None else hearing._stream
            if heard_by is not None:
                await heard_by.drained()

    @property
    def heard(self) -> list[float]:
        """How loud each frame is that the model has answered."""
        return [float(output.pcm[-1]) for output in self.outputs if output.pcm is not None]

    def on_output(self, output: StreamOutput) -> None:
        self.outputs.append(output)
        self.audio.on_model_output(output)

    def on_engine_error(self, error: ServerError) -> None:
        raise AssertionError(error)


@contextlib.asynccontextmanager
async def talk(load: Callable[[], StreamingModel]) -> AsyncIterator[Talk]:
    engine = local(load)
    engine.start()
    try:
        await engine.wait_settled()
        made = Talk(engine)
        yield made
        await made.audio.close()
        made.stream.close()
        assert engine.slots_used == 0
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def detector() -> AsyncIterator[EngineClient]:
    """Its slot is given back."""
    engine = local(lambda: Detector(1))
    engine.start()
    try:
        await engine.wait_settled()
        yield engine
        assert engine.slots_used == 0
    finally:
        await engine.close()


def loud(level: float = 0.5) -> FloatArray:
    return np.full(FRAME_SAMPLES, level, np.float32)


async def test_the_model_gets_each_frame_and_silence_for_those_that_do_not_come() -> None:
    async with talk(lambda: CountingModel(1)) as one:
        await one.open()
        one.say(loud(0.5))
        one.say(loud(0.25))
        one.audio.poll(one.audio.microphone.deadline)
        await one.stream.drained()
        assert one.heard == [0.5, 0.25, 0.0]
        assert (one.stats.frames_in, one.audio.microphone.filled) == (3, 1)


async def test_a_muted_microphone_is_heard_as_silence() -> None:
    async with talk(lambda: CountingModel(1)) as one:
        await one.open()
        one.audio.microphone.muted = True
        one.say(loud())
        await one.stream.drained()
        assert one.heard == [0.0]
        assert one.told == []


async def test_speech_is_told_where_it_begins_and_where_it_ends() -> None:
    """In time of the microphone, and its beginning to the one who watches for interruptions as well."""
    async with detector() as ear, talk(lambda: CountingModel(1)) as one:
        await one.open(ear, Settings(vad_hangover_ms=2 * FRAME_MS))
        await one.hear(0.0, 0.5, 0.5, 0.0, 0.0, 0.0)
        assert one.told == [events.SpeechStarted(FRAME_MS), events.SpeechEnded(3 * FRAME_MS)]
        assert one.began_to_speak == [FRAME_MS]


async def test_after_a_reset_time_begins_at_0_again() -> None:
    async with detector() as ear, talk(lambda: CountingModel(1)) as one:
        await one.open(ear)
        await one.hear(0.0, 0.0, 0.0)
        one.stream.reset()
        one.audio.reset()
        await one.hear(0.5, 0.5)
        assert one.told == [events.SpeechStarted(0)]


@pytest.mark.parametrize(("vad", "told"), [("auto", []), ("on", [events.SpeechStarted(0)])])
async def test_an_echo_is_not_told_of_its_own_speech_unless_it_is_wanted(
    vad: Literal["auto", "on"], told: list[events.ServerEvent]
) -> None:
    class Echo(CountingModel):
        def __init__(self) -> None:
            super().__init__(1)
            self.info = ModelInfo("echo", ServiceKind.ECHO, 1, "cpu", speaks=True, writes=False)

    async with detector() as ear, talk(Echo) as one:
        await one.open(ear, Settings(vad=vad))
        assert (ear.slots_used == 1) is bool(told)
        await one.hear(0.5, 0.5)
        assert one.told == told
        assert not one.audio.transcribes


async def test_a_transcribers_words_are_told_at_the_time_they_were_said() -> None:
    """Behind the silence that it wants first, which is no time of the microphone's; and the last comes by a flush."""
    async with talk(lambda: Scribe(1)) as one:
        await one.open()
        assert one.audio.transcribes
        assert len(one.outputs) == PREFIX_FRAMES
        for number in (0, 7, 8):
            one.say(numbered(number))
        await one.stream.drained()
        await one.audio.flush_words()
        words = [(event.text, event.start_ms) for event in one.told if isinstance(event, events.Word)]
        assert words == [("7", FRAME_MS), ("8", 2 * FRAME_MS)]


async def test_what_comes_after_the_end_is_counted_and_not_heard() -> None:
    async with talk(lambda: CountingModel(1)) as one:
        await one.open()
        one.say(loud(0.5))
        await one.audio.answered()
        assert one.heard == [0.5]
        one.say(loud(0.25))
        await one.stream.drained()
        assert one.heard == [0.5]
        assert (one.stats.frames_in, one.stats.frames_refused) == (2, 1)


async def test_an_engine_that_is_too_slow_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.sessions.user_audio._FINISH_S", 0.01)
    model = GatedModel(1)
    model.gate.release(1)  # of the warm step, if there is one
    async with talk(lambda: model) as one:
        await one.open()
        for _ in range(3):
            one.say(loud())
        async with asyncio.timeout(20):
            await one.audio.answered()
        assert one.stream.in_flight
        model.gate.release(100)
        await one.stream.drained()


async def test_a_model_that_does_not_transcribe_has_no_last_words() -> None:
    async with talk(lambda: CountingModel(1)) as one:
        await one.open()
        await one.audio.flush_words()
        one.say(loud())
        await one.stream.drained()
        assert one.heard == [0.5]
