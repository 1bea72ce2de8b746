"""The engine's client: over a scripted link, a thread, and a child process that is killed in every way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import zmq

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.client import EngineClient, EngineState, EngineStream, StreamOutput
from rtc_server.engine.factory import ModelOptions, SlotOptions
from rtc_server.engine.link import EngineLink, OnExit, OnMessage
from rtc_server.engine.local import LocalLink
from rtc_server.engine.messages import (
    Close,
    Frame,
    MemoryChanged,
    Open,
    Opened,
    Output,
    Ping,
    Pong,
    Ready,
    Refused,
    Reset,
    StepDone,
    Stop,
    ToEngine,
    decode_from_engine,
    encode,
)
from rtc_server.engine.model import FloatArray, MemoryUse, ModelInfo, ServiceKind, StreamingModel
from rtc_server.engine.process import ChildSpec, FirstLine, ProcessLink
from rtc_server.errors import EngineFailed, EngineUnavailable, ModelLoadError, ServerError, ServerFull
from rtc_server.metrics import Metrics
from tests.support.fake_models import MAGIC, CountingModel, FakeOptions, FaultyModel, GatedModel, unloadable
from tests.support.waiting import until

FAKES = "tests.support.fake_models"
READY = Ready(ModelInfo("fake", ServiceKind.DIALOGUE, 2, "cpu", True, True))


def frame(first: float = 0.5) -> FloatArray:
    pcm = np.full(FRAME_SAMPLES, 0.5, np.float32)
    pcm[0] = first
    return pcm


class Ear:
    """A stream's listener that keeps what it is told."""

    def __init__(self) -> None:
        self.pcm: list[FloatArray | None] = []
        self.texts: list[str] = []
        self.engine_s: list[float | None] = []
        self.frames: list[int] = []
        self.errors: list[ServerError] = []

    def on_output(self, output: StreamOutput) -> None:
        self.pcm.append(output.pcm)
        self.texts.append(output.text)
        self.engine_s.append(output.engine_s)
        self.frames.append(output.frame)

    def on_engine_error(self, error: ServerError) -> None:
        self.errors.append(error)


class ScriptedLink:
    """An engine whose part the test plays: it keeps what is sent, and says what the test makes it say."""

    def __init__(self) -> None:
        self.sent: list[ToEngine] = []
        self.taking = self.living = True
        self.closed = False
        self.say: OnMessage = lambda _: None
        self.end: OnExit = lambda: None
        self.pid = 4711

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        self.say, self.end = on_message, on_exit
        self.say(READY)

    def send(self, message: ToEngine) -> bool:
        if isinstance(message, Ping):
            if self.living:
                self.say(Pong())
        elif self.taking:
            self.sent.append(message)
        return self.taking

    async def close(self) -> None:
        self.closed = True


class Scripted:
    """A client over scripted links, the newest of which is :attr:`link`."""

    def __init__(self, stall_timeout_s: float = 60.0) -> None:
        self.links: list[ScriptedLink] = []
        self.metrics = Metrics()
        self.client = EngineClient("fake", self._make, self.metrics, stall_timeout_s)

    def _make(self) -> EngineLink:
        self.links.append(ScriptedLink())
        return self.links[-1]

    @property
    def link(self) -> ScriptedLink:
        return self.links[-1]

    async def open(self, slot: int = 0, generation: int = 1, ear: Ear | None = None) -> EngineStream:
        before = len(self.link.sent)
        opening = asyncio.create_task(self.client.open(ear or Ear()))
        await until(lambda: len(self.link.sent) > before)
        request = self.link.sent[-1]
        assert isinstance(request, Open)
        self.link.say(Opened(request.stream, slot, generation))
        return await opening

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0


def is_used(directory: Path) -> bool:
    return any(directory.iterdir())


@contextlib.asynccontextmanager
async def running(client: EngineClient) -> AsyncIterator[EngineClient]:
    client.start()
    try:
        await client.wait_settled()
        yield client
    finally:
        await client.close()


def local(load: Callable[[], StreamingModel], stall_timeout_s: float = 60.0) -> EngineClient:
    return EngineClient("fake", lambda: LocalLink(load), Metrics(), stall_timeout_s)


def child(factory: str, options: ModelOptions, stall_timeout_s: float = 60.0) -> EngineClient:
    spec = ChildSpec(factory, options, log_level=logging.CRITICAL)
    return EngineClient("fake", lambda: ProcessLink(spec), Metrics(), stall_timeout_s)


def echo_child(slots: int = 2) -> EngineClient:
    return child("rtc_server.models.echo:load", SlotOptions(slots))


KINDS = {
    "thread": lambda slots: local(lambda: CountingModel(slots)),
    "process": lambda slots: child(f"{FAKES}:counting", FakeOptions(slots)),
}


@pytest.fixture
def no_restart_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.client._RESTART_PAUSES_S", (0.0,))


@pytest.fixture
def private_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where engines make their directories, apart from those of others on this machine. Short: the path of a
    socket has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        monkeypatch.setenv("TMPDIR", directory)
        yield Path(directory)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_from_open_to_close(kind: str) -> None:
    """Ready, open, push, hear, refuse when full, give back, start afresh."""
    async with running(KINDS[kind](2)) as client:
        assert client.state is EngineState.READY
        assert client.info == ModelInfo("counting", ServiceKind.DIALOGUE, 2, "cpu", True, True)
        ears = [Ear(), Ear()]
        streams = [await client.open(ear) for ear in ears]
        assert {stream.slot for stream in streams} == {0, 1}
        with pytest.raises(ServerFull):
            await client.open(Ear())
        assert streams[0].push(frame())
        await until(lambda: ears[0].texts == [" 1"])
        assert streams[0].push(frame())
        assert streams[1].push(frame())
        await until(lambda: ears[0].texts == [" 1", " 2"] and ears[1].texts == [" 1"])
        pcm = ears[0].pcm[1]
        assert pcm is not None
        assert pcm.shape == (FRAME_SAMPLES,)
        assert pcm[0] == pytest.approx(0.002)
        assert (pcm[1:] == 0.5).all()
        assert all(seconds is not None and 0 <= seconds < 20 for seconds in ears[0].engine_s)
        assert client.slots_used == 2

        streams[0].close()
        streams[0].close()
        assert not streams[0].push(frame())
        newcomer = Ear()
        stream = await client.open(newcomer)
        assert (stream.slot, stream.generation) == (streams[0].slot, streams[0].generation + 1)
        stream.push(frame())
        await until(lambda: newcomer.texts == [" 1"])
        assert ears[0].texts == [" 1", " 2"]
        stream.reset()
        stream.push(frame())
        await until(lambda: newcomer.texts == [" 1", " 1"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_model_that_cannot_be_loaded(kind: str) -> None:
    """Said once, with the hint, and never tried again; who asks for a slot is refused."""
    options = FakeOptions(2)
    client = local(lambda: unloadable(options)) if kind == "thread" else child(f"{FAKES}:unloadable", options)
    client.start()
    with pytest.raises(ModelLoadError, match="no such model") as caught:
        await client.wait_settled()
    assert caught.value.hint == "Check the name."
    assert client.state is EngineState.FAILED
    with pytest.raises(EngineUnavailable):
        await client.open(Ear())
    await client.close()
    assert client.restarts == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_model_that_raises_is_started_again(kind: str, no_restart_pause: None) -> None:
    """Everybody in the engine is told, once; the streams are dead; new ones work."""
    client = local(lambda: FaultyModel(2)) if kind == "thread" else child(f"{FAKES}:faulty", FakeOptions(2))
    async with running(client):
        ears = [Ear(), Ear()]
        streams = [await client.open(ear) for ear in ears]
        streams[0].push(frame(MAGIC))
        await until(lambda: all(ear.errors for ear in ears))
        assert [type(error) for ear in ears for error in ear.errors] == [EngineFailed, EngineFailed]
        assert not any(stream.push(frame()) for stream in streams)
        await until(lambda: client.ready)
        assert client.restarts == 1
        ear = Ear()
        (await client.open(ear)).push(frame())
        await until(lambda: ear.texts == [" 1"])


async def test_what_the_model_holds_can_be_read_off() -> None:
    """From the moment it is ready, whenever it changes, and no longer once the engine is gone."""
    scripted = Scripted()

    def gauges() -> list[float]:
        held = [scripted.count("rtc_engine_memory_bytes", service="fake", kind=k) for k in ("weights", "cache", "rest")]
        return [*held, scripted.count("rtc_device_memory_bytes", service="fake", kind="free")]

    async with running(scripted.client) as client:
        scripted.link.say(msgspec.structs.replace(READY, memory=MemoryUse(100, 20, 0, 7, 200)))
        assert (client.memory, gauges()) == (MemoryUse(100, 20, 0, 7, 200), [100, 20, 0, 7])
        scripted.link.say(MemoryChanged(MemoryUse(100, 20, 5, 6, 200)))
        assert (client.memory, gauges()) == (MemoryUse(100, 20, 5, 6, 200), [100, 20, 5, 6])
        scripted.link.end()
        await until(lambda: client.memory == MemoryUse())
        assert gauges()[:3] == [0, 0, 0]


async def test_nothing_is_opened_before_the_engine_is_ready() -> None:
    scripted = Scripted()
    with pytest.raises(EngineUnavailable):
        await scripted.client.open(Ear())
    assert scripted.client.state is EngineState.LOADING
    assert scripted.client.pid is None


async def test_after_the_close_nothing_works_and_nothing_hangs() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        stream = await scripted.open()
        assert scripted.client.pid == 4711
    assert scripted.link.closed
    assert scripted.client.state is EngineState.CLOSED
    assert not stream.push(frame())
    with pytest.raises(EngineUnavailable):
        await scripted.client.open(Ear())
    await scripted.client.close()


async def test_a_close_refuses_whoever_is_being_let_in() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
    with pytest.raises(EngineUnavailable):
        await opening


async def test_a_client_may_be_closed_before_it_was_started_or_has_loaded() -> None:
    await Scripted().client.close()
    client = echo_child()
    client.start()
    await client.close()
    assert client.state is EngineState.CLOSED


async def test_a_cancelled_open_gives_the_slot_back_when_the_answer_comes() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        scripted.link.say(Opened(1, 1, 7))
        assert scripted.link.sent == [Open(1), Close(1, 7)]


async def test_an_open_cancelled_in_the_moment_of_its_answer_gives_the_slot_back() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
        scripted.link.say(Opened(1, 1, 7))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert scripted.link.sent == [Open(1), Close(1, 7)]


async def test_an_open_cancelled_in_the_moment_of_its_refusal_is_cancelled() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: scripted.link.sent)
        scripted.link.say(Refused(1))
        opening.cancel()
        with pytest.raises((asyncio.CancelledError, ServerFull)):
            await opening
        assert scripted.link.sent == [Open(1)]


async def test_an_open_that_is_not_answered_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """And when the answer comes after all, the slot goes back."""
    monkeypatch.setattr("rtc_server.engine.client._OPEN_TIMEOUT_S", 0.02)
    scripted = Scripted()
    async with running(scripted.client):
        with pytest.raises(EngineUnavailable):
            await scripted.client.open(Ear())
        scripted.link.say(Opened(1, 0, 1))
        assert scripted.link.sent == [Open(1), Close(0, 1)]


async def test_an_engine_that_takes_nothing_refuses_at_once() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        stream = await scripted.open()
        scripted.link.taking = False
        with pytest.raises(EngineUnavailable):
            await scripted.client.open(Ear())
        assert not stream.push(frame())
        assert scripted.count("rtc_frames_dropped_total", reason="engine_busy") == 1


async def test_opens_are_answered_each_with_their_own_slot() -> None:
    """In whatever order the answers come."""
    scripted = Scripted()
    async with running(scripted.client):
        openings = [asyncio.create_task(scripted.client.open(Ear())) for _ in range(3)]
        await until(lambda: len(scripted.link.sent) == 3)
        scripted.link.say(Opened(3, 1, 5))
        scripted.link.say(Refused(1))
        scripted.link.say(Opened(2, 0, 9))
        first, second, third = await asyncio.gather(*openings, return_exceptions=True)
        assert isinstance(first, ServerFull)
        assert isinstance(second, EngineStream)
        assert isinstance(third, EngineStream)
        assert (second.slot, second.generation, third.slot, third.generation) == (0, 9, 1, 5)


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


async def test_step_time_is_the_median_once_there_are_enough() -> None:
    """And is forgotten with the engine that it was measured on."""
    scripted = Scripted()
    async with running(scripted.client):
        for _ in range(31):
            scripted.link.say(StepDone(0.05, 0, []))
        assert scripted.client.step_p50_ms is None
        scripted.link.say(StepDone(9.0, 0, []))
        assert scripted.client.step_p50_ms == pytest.approx(50)
        for _ in range(64):
            scripted.link.say(StepDone(0.07, 0, []))
        assert scripted.client.step_p50_ms == pytest.approx(70)
        scripted.link.end()
        await until(lambda: not scripted.client.ready)
        assert scripted.client.step_p50_ms is None


async def test_what_an_engine_reports_moves_the_metrics() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        stream = await scripted.open(0, 1)
        stream.push(frame())
        scripted.link.say(StepDone(0.05, 3, [Output(0, 1, 1, None, "")]))
        assert scripted.client.slots_used == 1
        assert scripted.count("rtc_slots", service="fake") == 2
        assert scripted.count("rtc_slots_used", service="fake") == 1
        assert scripted.count("rtc_frames_dropped_total", reason="engine_queue") == 3
        assert scripted.count("rtc_step_seconds_count", service="fake") == 1
        assert scripted.count("rtc_step_rows_sum", service="fake") == 1
        assert scripted.count("rtc_frame_seconds_count", service="fake") == 1
        scripted.link.end()
        await until(lambda: scripted.count("rtc_engine_restarts_total", service="fake") == 1)
        assert scripted.count("rtc_slots_used", service="fake") == 0


async def test_an_engine_that_ends_costs_those_who_are_in_it_and_those_at_the_door() -> None:
    scripted = Scripted()
    async with running(scripted.client):
        ear = Ear()
        stream = await scripted.open(0, 1, ear)
        opening = asyncio.create_task(scripted.client.open(Ear()))
        await until(lambda: isinstance(scripted.link.sent[-1], Open))
        scripted.link.end()
        with pytest.raises(EngineUnavailable):
            await opening
        assert [error.code for error in ear.errors] == ["engine_failed"]
        assert stream.closed
        assert scripted.client.state is EngineState.RESTARTING
        await until(lambda: scripted.client.ready)
        assert len(scripted.links) == 2
        assert scripted.links[0].closed
        stream.close()
        assert not scripted.link.sent, "a dead stream says nothing to the next engine"


async def test_the_pause_before_a_restart_grows_until_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that loaded once and then ends before it is ready is not started over and over as fast as can be."""
    pauses: list[float] = []
    links: list[ScriptedLink] = []
    real_sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds < 0.2:  # the test's own waiting, for there is one asyncio
            await real_sleep(seconds)
            return
        pauses.append(seconds)
        await real_sleep(0)

    class Ailing(ScriptedLink):
        async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
            links.append(self)
            if len(pauses) in (0, 9):
                await super().start(on_message, on_exit)
            else:
                on_exit()

    client = EngineClient("fake", Ailing, Metrics())
    monkeypatch.setattr("rtc_server.engine.client.asyncio.sleep", note)
    async with running(client):
        links[0].end()
        await until(lambda: client.ready and client.restarts == 9)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 10.0


async def test_an_engine_that_cannot_be_started_now_is_tried_again(
    no_restart_pause: None, caplog: pytest.LogCaptureFixture
) -> None:
    """No descriptor left, no memory to fork: that may pass."""
    failures = iter([OSError("too many open files")] * 2)
    links: list[ScriptedLink] = []

    class Unstartable(ScriptedLink):
        async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
            for failure in failures:
                raise failure
            await super().start(on_message, on_exit)

    def make_link() -> EngineLink:
        links.append(Unstartable())
        return links[-1]

    async with running(EngineClient("fake", make_link, Metrics())) as client:
        assert client.ready
        assert client.restarts == 2
        assert [link.closed for link in links] == [True, True, False]
    assert "too many open files" in caplog.text


STALL_S = 0.05


async def test_an_engine_that_does_not_answer_is_replaced() -> None:
    """Whether or not there is anybody in it."""
    scripted = Scripted(STALL_S)
    async with running(scripted.client):
        ear = Ear()
        await scripted.open(0, 1, ear)
        scripted.link.living = False
        await until(lambda: ear.errors)
        await until(lambda: len(scripted.links) == 2)
        assert scripted.links[0].closed
        scripted.link.living = False
        await until(lambda: len(scripted.links) == 3)


async def test_an_engine_that_answers_is_left_alone() -> None:
    """Also one that nobody asks for anything, or that takes its time for a frame."""
    scripted = Scripted(STALL_S)
    async with running(scripted.client):
        (await scripted.open(0, 1)).push(frame())
        with pytest.raises(AssertionError):
            await until(lambda: scripted.links[0].closed, within_s=5 * STALL_S)


async def test_an_engine_that_falls_silent_takes_nobody_in_until_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are in it stay, and are told, both times; an opening that waits for it is refused at once."""
    monkeypatch.setattr("rtc_server.engine.client.quiet_s", lambda _: STALL_S)
    scripted = Scripted()
    told: list[bool] = []
    scripted.client.on_stall = told.append
    async with running(scripted.client) as client:
        ear = Ear()
        stream = await scripted.open(0, 1, ear)
        opening = asyncio.create_task(client.open(Ear()))
        scripted.link.living = False
        with pytest.raises(EngineUnavailable):
            await opening
        assert (client.state, client.ready, told) == (EngineState.STALLED, False, [True])
        assert client.pid == 4711
        with pytest.raises(EngineUnavailable):
            await client.open(Ear())
        assert stream.push(frame())
        scripted.link.say(StepDone(0.01, 0, [Output(0, 1, 1, None, "on it goes")]))
        assert (client.state, told) == (EngineState.READY, [True, False])
        assert ear.texts == ["on it goes"]
        assert not ear.errors
        assert scripted.count("rtc_engine_stalls_total", service="fake") == 1
        scripted.link.living = True
        await scripted.open(1, 1)


async def test_a_silent_engine_that_ends_is_said_to_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.client.quiet_s", lambda _: STALL_S)
    scripted = Scripted()
    async with running(scripted.client) as client:
        ear = Ear()
        await scripted.open(0, 1, ear)
        scripted.link.living = False
        await until(lambda: client.state is EngineState.STALLED)
        scripted.link.end()
        await until(lambda: client.ready)
        assert [error.code for error in ear.errors] == ["engine_failed"]
        assert client.restarts == 1


async def test_an_engine_with_slow_steps_may_take_its_time() -> None:
    """What it took for a step when it was timed counts, and so do its last steps."""
    scripted = Scripted()
    seen: list[tuple[float, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rtc_server.engine.client.quiet_s", lambda steps: seen.append(tuple(steps)) or 60.0)
        async with running(scripted.client):
            scripted.link.say(msgspec.structs.replace(READY, step_s=3.0))
            scripted.link.say(StepDone(0.4, 0, []))
            await until(lambda: (3.0, 0.4) in seen)


async def test_waiting_for_an_engine_ends_when_it_is_ready() -> None:
    scripted = Scripted()
    waiting = asyncio.create_task(scripted.client.wait_ready())
    async with running(scripted.client) as client:
        await waiting
        scripted.link.end()
        await until(lambda: not client.ready)
        await client.wait_ready()
        assert len(scripted.links) == 2


async def test_a_cancelled_open_leaves_no_slot_taken() -> None:
    """The engine is in the middle of a step, so that the answer comes after the caller has gone."""
    model = GatedModel(2)
    async with running(local(lambda: model)) as client:
        stream = await client.open(Ear())
        stream.push(frame())
        await asyncio.to_thread(model.wait_entered)
        opening = asyncio.create_task(client.open(Ear()))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        model.gate.release(1000)
        with contextlib.suppress(ServerFull):  # the slot is on its way back while the engine answers this one
            (await client.open(Ear())).close()
        await client.open(Ear())
        with pytest.raises(ServerFull):
            await client.open(Ear())
        stream.close()
        assert (await client.open(Ear())).slot == 0


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
    client = local(lambda: model)
    async with running(client):
        ear = Ear()
        stream = await client.open(ear)
        stream.push(frame())
        await asyncio.to_thread(model.wait_entered)
        for _ in range(10):
            assert stream.push(frame())
        model.gate.release(1000)
        await until(lambda: len(ear.texts) == 5)
        dropped = client._metrics.registry.get_sample_value("rtc_frames_dropped_total", {"reason": "engine_queue"})
        assert dropped == 6


async def test_the_model_runs_in_one_thread_which_is_not_the_event_loops() -> None:
    model = CountingModel(1)
    async with running(local(lambda: model)) as client:
        ear = Ear()
        stream = await client.open(ear)
        for turn in range(5):
            stream.push(frame())
            await until(lambda turn=turn: len(ear.texts) == turn + 1)
        assert model.warm
    assert model.threads == {"engine"}
    assert model.closed


async def test_a_killed_engine_is_started_again(no_restart_pause: None) -> None:
    async with running(echo_child()) as client:
        pid = client.pid
        assert pid is not None
        assert pid != os.getpid()
        ear = Ear()
        stream = await client.open(ear)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: ear.errors)
        assert ear.errors[0].code == "engine_failed"
        assert not stream.push(frame())
        await until(lambda: client.ready)
        assert client.pid not in (None, pid)
        ear = Ear()
        (await client.open(ear)).push(frame(0.125))
        await until(lambda: ear.pcm)
        np.testing.assert_array_equal(ear.pcm[0], frame(0.125))


async def test_a_hanging_engine_is_killed_and_started_again(
    no_restart_pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not hear that it should stop."""
    monkeypatch.setattr("rtc_server.engine.process._CLOSE_TIMEOUT_S", 0.1)
    async with running(child(f"{FAKES}:faulty", FakeOptions(1, fault="hang"), 0.4)) as client:
        pid = client.pid
        assert pid is not None
        ear = Ear()
        (await client.open(ear)).push(frame(MAGIC))
        await until(lambda: ear.errors)
        await until(lambda: client.ready)
        assert not psutil.pid_exists(pid)
        ear = Ear()
        (await client.open(ear)).push(frame())
        await until(lambda: ear.texts == [" 1"])


async def test_a_close_while_a_hanging_engine_is_being_ended_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, private_directory: Path
) -> None:
    """The server is stopped in the seconds that the hanging engine is given."""
    monkeypatch.setattr("rtc_server.engine.process._CLOSE_TIMEOUT_S", 0.5)
    async with running(child(f"{FAKES}:faulty", FakeOptions(1, fault="hang"), 0.1)) as client:
        pid = client.pid
        assert pid is not None
        ear = Ear()
        (await client.open(ear)).push(frame(MAGIC))
        await until(lambda: ear.errors)
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    assert not is_used(private_directory)


async def test_a_model_that_cannot_be_loaded_again_is_tried_again(tmp_path: Path, no_restart_pause: None) -> None:
    """It has worked before: the disk or the card may come back."""
    marker = tmp_path / "loaded"
    async with running(child(f"{FAKES}:loadable_once", FakeOptions(1, marker=str(marker)))) as client:
        ear = Ear()
        (await client.open(ear)).push(frame(MAGIC))
        await until(lambda: client.restarts >= 2)
        assert client.state is EngineState.RESTARTING
        marker.unlink()
        await until(lambda: client.ready)
        await client.wait_settled()


async def test_a_ctrl_c_in_the_terminal_is_not_the_engines_to_handle() -> None:
    async with running(echo_child()) as client:
        assert client.pid is not None
        os.kill(client.pid, signal.SIGINT)
        ear = Ear()
        (await client.open(ear)).push(frame())
        await until(lambda: ear.pcm)
        assert not ear.errors


async def test_links_that_are_collected_leave_the_sockets_of_others_alone() -> None:
    """ZeroMQ gives a closed socket's handle to the next one: whoever closes twice closes somebody else's."""
    for _ in range(20):
        old = ProcessLink(ChildSpec("no:where", SlotOptions(1)))
        await old.close()
        link = ProcessLink(ChildSpec("no:where", SlotOptions(1)))
        del old
        gc.collect()
        assert not link._from_child.closed
        assert not link._to_child.closed
        await link.close()


def held() -> dict[str, Any]:
    """What this process holds: threads (ours and ZeroMQ's), descriptors, children, tasks."""
    me = psutil.Process()
    return {
        "threads": me.num_threads(),
        "descriptors": me.num_fds(),
        "children": [each.pid for each in me.children()],
        "tasks": sorted(task.get_name() for task in asyncio.all_tasks()),
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_a_close_leaves_nothing_behind(kind: str, private_directory: Path) -> None:
    """No process, thread, task, descriptor or directory, be the stream closed or not."""

    async def live() -> None:
        async with running(KINDS[kind](2)) as client:
            ear = Ear()
            stream = await client.open(ear)
            stream.push(frame())
            await until(lambda: ear.texts)

    await live()  # what is made once and kept belongs to the process, not to the engine
    before = held()
    threads = before.pop("threads")
    await live()

    def no_more() -> bool:
        """A thread that had ended for Python may have been on its way out for the system."""
        now = held()
        return now.pop("threads") <= threads and now == before

    await until(no_more, within_s=5)
    assert not is_used(private_directory)


SPEC = ChildSpec("rtc_server.models.echo:load", SlotOptions(1), log_level=logging.CRITICAL)


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "before it knows its model"])
def test_a_child_whose_standard_input_ends_ends_too(loaded: bool, tmp_path: Path) -> None:
    """That is how it learns that its parent is gone."""
    inbox, outbox = (f"ipc://{tmp_path / name}" for name in ("i", "o"))
    command = [sys.executable, "-m", "rtc_server.engine.process"]
    with zmq.Context() as context, context.socket(zmq.PULL) as from_child, context.socket(zmq.PUSH) as to_child:
        from_child.bind(outbox)
        to_child.bind(inbox)
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            if loaded:
                process.stdin.write(msgspec.json.encode(FirstLine.of(SPEC, inbox, outbox)) + b"\n")
                process.stdin.flush()
                assert from_child.poll(20_000)
                assert isinstance(decode_from_engine(from_child.recv()), Ready)
            process.stdin.close()
            assert process.wait(20) == 0


def test_a_child_that_is_told_to_stop_ends_well(tmp_path: Path) -> None:
    inbox, outbox = (f"ipc://{tmp_path / name}" for name in ("i", "o"))
    command = [sys.executable, "-m", "rtc_server.engine.process"]
    with zmq.Context() as context, context.socket(zmq.PULL) as from_child, context.socket(zmq.PUSH) as to_child:
        from_child.bind(outbox)
        to_child.bind(inbox)
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(FirstLine.of(SPEC, inbox, outbox)) + b"\n")
            process.stdin.flush()
            to_child.send(encode(Stop()))
            assert process.wait(20) == 0


PARENT = """
import asyncio
from rtc_server.engine.client import EngineClient
from rtc_server.engine.factory import SlotOptions
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.metrics import Metrics

async def main():
    spec = ChildSpec("rtc_server.models.echo:load", SlotOptions(1), log_level=50)
    client = EngineClient("echo", lambda: ProcessLink(spec), Metrics())
    client.start()
    await client.wait_settled()
    print(client.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_parent_that_is_killed_takes_its_engine_along(private_directory: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        engine = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    # Where no init process reaps orphans, one that has ended stays on as a zombie.
    deadline = time.monotonic() + 20
    while engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_an_engine_that_is_killed_while_it_loads_is_not_loaded_again() -> None:
    """The system has no memory for it, and will have none the next time."""
    client = child(f"{FAKES}:killed", FakeOptions(1))
    client.start()
    try:
        with pytest.raises(ModelLoadError, match="killed while it was loading, most likely because memory") as raised:
            await asyncio.wait_for(client.wait_settled(), 20)
        assert "rtc-server check" in (raised.value.hint or "")
        assert client.restarts == 0
    finally:
        await client.close()


async def test_an_engine_that_never_gets_ready_is_given_up() -> None:
    """A model that fails to load in a way that nobody foresaw: the server says so, and does not try for ever."""

    def load() -> StreamingModel:
        raise RuntimeError("of no known kind")

    client = EngineClient("fake", lambda: LocalLink(load), Metrics())
    client.start()
    try:
        with pytest.raises(ModelLoadError) as raised:
            await asyncio.wait_for(client.wait_settled(), 20)
        assert raised.value.hint
        assert client.state is EngineState.FAILED
    finally:
        await client.close()
