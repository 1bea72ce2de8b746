"""An engine is started, watched and started again: over a scripted link, and a child process that ends in every way."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from lab.waiting import until
from rtc_server.engine.client import EngineClient
from rtc_server.engine.link import EngineLink, OnExit, OnMessage
from rtc_server.engine.local import LocalLink
from rtc_server.engine.messages import Output, StepDone
from rtc_server.engine.model import StreamingModel
from rtc_server.engine.supervisor import EngineState
from rtc_server.errors import EngineFailed, EngineUnavailable, ModelLoadError
from rtc_server.metrics import Metrics
from tests.support.engines import (
    FAKES,
    KINDS,
    READY,
    Ear,
    Scripted,
    ScriptedLink,
    child,
    echo_child,
    frame,
    is_empty,
    local,
    running,
)
from tests.support.fake_models import MAGIC, FakeOptions, FaultyModel, unloadable


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
    monkeypatch.setattr("rtc_server.engine.supervisor.asyncio.sleep", note)
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
        await until(lambda: scripted.link.pings >= 20)  # for five times as long as it may be silent
        assert len(scripted.links) == 1
        assert scripted.client.ready


async def test_an_engine_that_falls_silent_takes_nobody_in_until_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are in it stay, and are told, both times; an opening that waits for it is refused at once."""
    monkeypatch.setattr("rtc_server.engine.supervisor.quiet_s", lambda _: STALL_S)
    scripted = Scripted()
    told: list[bool] = []
    scripted.client.on_stall = lambda stalled, _: told.append(stalled)
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
    monkeypatch.setattr("rtc_server.engine.supervisor.quiet_s", lambda _: STALL_S)
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
        patch.setattr("rtc_server.engine.supervisor.quiet_s", lambda steps: seen.append(tuple(steps)) or 60.0)
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


HUNG_S = 1.5
"""Longer than a process that has nothing to do is kept from its turn."""


async def hung(client: EngineClient) -> int:
    """The process of an engine that hangs in a step, whose stream has been told."""
    pid = client.pid
    assert pid is not None
    ear = Ear()
    (await client.open(ear)).push(frame(MAGIC))
    await until(lambda: ear.errors)
    return pid


async def test_a_hanging_engine_is_killed_and_started_again(
    no_restart_pause: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not hear that it should stop."""
    monkeypatch.setattr("rtc_server.engine.child_link._CLOSE_TIMEOUT_S", 0.1)
    async with running(child(f"{FAKES}:faulty", FakeOptions(1, fault="hang"), HUNG_S)) as client:
        pid = await hung(client)
        await until(lambda: client.ready)
        assert not psutil.pid_exists(pid)
        ear = Ear()
        (await client.open(ear)).push(frame())
        await until(lambda: ear.texts == [" 1"])


async def test_a_close_while_a_hanging_engine_is_being_ended_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, private_directory: Path
) -> None:
    """The server is stopped in the seconds that the hanging engine is given."""
    monkeypatch.setattr("rtc_server.engine.child_link._CLOSE_TIMEOUT_S", 0.5)
    async with running(child(f"{FAKES}:faulty", FakeOptions(1, fault="hang"), HUNG_S)) as client:
        pid = await hung(client)
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)
    assert is_empty(private_directory)


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


async def test_an_engine_that_is_killed_while_it_loads_is_not_loaded_again() -> None:
    """The system has no memory for it, and will have none the next time."""
    client = child(f"{FAKES}:killed", FakeOptions(1))
    client.start()
    try:
        with pytest.raises(ModelLoadError, match="killed while it was loading, most likely because memory") as raised:
            async with asyncio.timeout(20):
                await client.wait_settled()
        assert "rtc-server check" in (raised.value.hint or "")
        assert client.restarts == 0
    finally:
        await client.close()


@pytest.mark.slow
async def test_an_engine_that_never_gets_ready_is_given_up() -> None:
    """A model that fails to load in a way that nobody foresaw: the server says so, and does not try for ever."""

    def load() -> StreamingModel:
        raise RuntimeError("of no known kind")

    client = EngineClient("fake", lambda: LocalLink(load), Metrics())
    client.start()
    try:
        with pytest.raises(ModelLoadError) as raised:
            async with asyncio.timeout(20):
                await client.wait_settled()
        assert raised.value.hint
        assert client.state is EngineState.FAILED
    finally:
        await client.close()
