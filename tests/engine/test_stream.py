"""What goes through one stream, and what does not any more."""

from __future__ import annotations

import asyncio

import pytest

from lab.waiting import until
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.engine.messages import Close, Frame, Opened, Output, Reset, StepDone, ToEngine
from rtc_server.engine.stream import WINDOW_FRAMES, EngineStream
from rtc_server.errors import EngineFailed
from rtc_server.metrics import Metrics
from tests.support.engines import Ear, Scripted, frame, local, running
from tests.support.fake_models import GatedModel


async def test_a_reset_drops_what_the_old_conversation_still_says() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        ear = Ear()
        stream = await scripted.open(0, 1, ear)
        stream.push(frame())
        stream.reset()
        assert isinstance(scripted.link.sent[-1], Reset)
        stream.push(frame())
        sent = scripted.link.sent[-1]
        assert isinstance(sent, Frame)
        assert (sent.slot, sent.generation) == (0, 2)
        scripted.link.say(StepDone(0.01, 0, [Output(0, 1, 1, None, "old")]))
        scripted.link.say(StepDone(0.01, 0, [Output(0, 2, sent.seq, None, "new")]))
        assert ear.texts == ["new"]
        assert scripted.count("rtc_frames_dropped_total", reason="stale") == 1
        stream.close()
        assert scripted.link.sent[-1] == Close(0, 2)


async def test_a_closed_stream_hears_nothing_more_and_sends_nothing_more() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        ear = Ear()
        stream = await scripted.open(0, 1, ear)
        stream.push(frame())
        stream.close()
        sent = list(scripted.link.sent)
        scripted.link.say(StepDone(0.01, 0, [Output(0, 1, 1, None, "late")]))
        stream.reset()
        stream.close()
        assert not stream.push(frame())
        assert not ear.texts
        assert scripted.link.sent == sent


async def test_an_output_whose_frame_is_long_forgotten_has_no_time() -> None:
    """An engine that never answers some frames must not make the client remember them all."""
    scripted = Scripted()
    async with running(scripted.client):
        ear = Ear()
        stream = await scripted.open(0, 1, ear)
        for _ in range(1000):
            stream.push(frame())
        outputs = [Output(0, 1, seq, None, str(seq)) for seq in (1, 1000)]
        scripted.link.say(StepDone(0.01, 0, outputs))
        assert ear.texts == ["1", "1000"]
        assert ear.engine_s[0] is None
        assert ear.engine_s[1] is not None


async def test_a_reset_in_the_middle_of_a_step_drops_its_output() -> None:
    model = GatedModel(1)
    async with running(local(lambda: model)) as client:
        ear = Ear()
        stream = await client.open(ear)
        stream.push(frame())
        await asyncio.to_thread(model.wait_entered)
        stream.reset()
        stream.push(frame())
        model.gate.release(2)
        await until(lambda: ear.texts)
        assert ear.texts == [" 1"]
        assert model.steps == [[0], [0]]
        assert model.wipes == [[0]]


async def test_a_slow_model_loses_the_oldest_frames_and_says_how_many() -> None:
    model = GatedModel(1)
    metrics = Metrics()
    async with running(EngineClient("fake", lambda: LocalLink(lambda: model), metrics)) as client:
        ear = Ear()
        stream = await client.open(ear)
        stream.push(frame())
        await asyncio.to_thread(model.wait_entered)
        for _ in range(10):
            assert stream.push(frame())
        model.gate.release(1000)
        await until(lambda: len(ear.texts) == 5)
        dropped = metrics.registry.get_sample_value("rtc_frames_dropped_total", {"reason": "engine_queue"})
        assert dropped == 6


class Wire:
    """A stream that is open, and what it sends."""

    def __init__(self) -> None:
        self.sent: list[ToEngine] = []
        self.closed: list[EngineStream] = []
        self.ear = Ear()
        self.stream = EngineStream(Opened(1, 3, 7), self.ear, self._send, self.closed.append)

    def _send(self, message: ToEngine) -> bool:
        self.sent.append(message)
        return True

    @property
    def frames(self) -> list[int]:
        return [message.seq for message in self.sent if isinstance(message, Frame)]

    def answer(self, seq: int) -> None:
        self.stream.deliver(Output(3, self.stream.generation, seq, None, str(seq)), now=0.0)


async def test_audio_that_is_fed_goes_as_fast_as_the_engine_answers() -> None:
    """So that none is dropped there, however much there is of it."""
    wire = Wire()
    feeding = asyncio.create_task(feed(wire.stream, WINDOW_FRAMES + 2))
    await until(lambda: len(wire.frames) == WINDOW_FRAMES)
    for answered in (1, 2):
        wire.answer(answered)
        await until(lambda answered=answered: len(wire.frames) == WINDOW_FRAMES + answered)
    assert await feeding == [True] * (WINDOW_FRAMES + 2)
    draining = asyncio.create_task(wire.stream.drained())
    for seq in wire.frames[2:]:
        assert not draining.done()
        wire.answer(seq)
    await draining
    assert wire.ear.texts == [str(seq) for seq in wire.frames]


async def feed(stream: EngineStream, count: int) -> list[bool]:
    return [await stream.feed(frame()) for _ in range(count)]


@pytest.mark.parametrize("end", ["close", "lose"])
async def test_the_end_of_a_stream_ends_those_who_feed_it_and_wait_for_it(end: str) -> None:
    wire = Wire()
    feeding = asyncio.create_task(feed(wire.stream, WINDOW_FRAMES + 1))
    draining = asyncio.create_task(wire.stream.drained())
    await until(lambda: len(wire.frames) == WINDOW_FRAMES)
    if end == "close":
        wire.stream.close()
        assert (wire.sent[-1], wire.closed) == (Close(3, 7), [wire.stream])
    else:
        wire.stream.lose(EngineFailed())
        assert ([error.code for error in wire.ear.errors], wire.closed) == (["engine_failed"], [])
    assert await feeding == [True] * WINDOW_FRAMES + [False]
    await draining


def test_frames_are_numbered_from_the_last_reset_on() -> None:
    wire = Wire()
    for _ in range(2):
        wire.stream.push(frame())
    wire.stream.reset()
    wire.stream.push(frame())
    assert wire.sent[2] == Reset(3, 7)
    assert wire.stream.generation == 8
    assert wire.stream.in_flight == 1
    wire.answer(3)
    assert wire.ear.frames == [1]
