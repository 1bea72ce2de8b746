"""A session whose engine dies keeps its client: it asks for another slot, and goes on with a model that knows nothing
of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from lab.waiting import until
from rtc_server import config
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES
from rtc_server.cluster.directory import Directory
from rtc_server.cluster.pooled import PooledEngine
from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import StreamingModel
from rtc_server.engine.remote import RemoteLink
from rtc_server.engine.supervisor import EngineState
from rtc_server.errors import EngineUnavailable, ModelLoadError, ResumedElsewhere
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import Bye, OfferOptions, Reset
from rtc_server.sessions.admission import Admission
from rtc_server.sessions.registry import Registry
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason, SessionState
from rtc_server.sessions.transport import Transport
from rtc_server.system.loop_lag import LoopLag
from tests.sessions.test_session import VISITOR, connect, opened, say, words
from tests.sessions.test_takeover import come_back, memo_has_arrived
from tests.support.engines import Loads, running
from tests.support.fake_models import MAGIC, CountingModel, FaultyModel
from tests.support.pools import pool
from tests.support.scribe import BREAK, PREFIX_FRAMES, Scribe, numbered
from tests.support.served import KEY, node, served
from tests.support.transport import HandTransport

pytestmark = pytest.mark.usefixtures("no_restart_pause")


@pytest.fixture
def no_restart_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.supervisor._RESTART_PAUSES_S", (0.0,))


@contextlib.asynccontextmanager
async def registry_of(engine: Engine, metrics: Metrics | None = None, **settings: Any) -> AsyncIterator[Registry]:
    """Nothing that a session took is left at the end."""
    wanted = config.Settings(model="echo", **settings)
    metrics = metrics or Metrics()
    admission = Admission({"dialogue": engine}, wanted, LoopLag(wanted.max_lag_ms, metrics))
    made = Registry(admission, wanted, metrics)
    yield made
    await admission.close()
    assert (engine.slots_used, engine.slots_asked_for, len(made)) == (0, 0, 0)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("slot-", "intake"))]


@contextlib.asynccontextmanager
async def registry(*loads: Callable[[], StreamingModel], **settings: Any) -> AsyncIterator[Registry]:
    engine = EngineClient("dialogue", partial(LocalLink, Loads(*loads)), Metrics())
    engine.start()
    try:
        await engine.wait_settled()
        async with registry_of(engine, **settings) as made:
            yield made
    finally:
        await engine.close()


def engine_of(registry: Registry) -> EngineClient:
    engine = registry.admission.engines["dialogue"]
    assert isinstance(engine, EngineClient)
    return engine


async def break_it(session: Session, transport: HandTransport) -> None:
    """As soon as the microphone has room for another frame."""

    def taken() -> bool:
        before = session._stats.frames_in
        session.on_audio(transport, np.full(FRAME_SAMPLES, MAGIC, np.float32), session._clock())
        return session._stats.frames_in > before

    await until(taken, "room for a frame")


def kinds(transport: HandTransport) -> list[str]:
    """What the client is told, apart from words and figures."""
    return [
        str(event.get("code") or event.get("reason") or event["type"])
        for event in transport.events
        if event["type"] in ("connected", "error", "recovered", "disconnected") or "reason" in event
    ]


async def until_told(transport: HandTransport, kind: str, count: int = 1) -> None:
    await until(lambda: kinds(transport).count(kind) >= count, f"{kind} among {kinds(transport)}")


async def test_it_goes_on_with_the_next_engine_by_the_same_transport() -> None:
    async with registry(partial(FaultyModel, 1)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        say(session, transport, 2)
        await until(lambda: words(transport)[:2] == [1, 2])
        await break_it(session, transport)
        await until_told(transport, "restarted")
        assert kinds(transport) == ["connected", "engine_failed", "engine_failed", "restarted"]
        assert [event["type"] for event in transport.events if "code" in event] == ["error", "recovered"]
        assert session.state is SessionState.LISTENING
        assert (engine_of(made).restarts, engine_of(made).slots_used) == (1, 1)
        seen, sounded = len(words(transport)), len(transport.played)
        say(session, transport)
        await until(lambda: len(words(transport)) > seen and len(transport.played) > sounded, "words and sound")
        assert words(transport)[seen] == 1, "it has forgotten"
        assert not transport.closed


async def test_times_count_on_over_what_no_model_has_heard() -> None:
    async with registry(partial(FaultyModel, 1)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        await break_it(session, transport)
        await until_told(transport, "restarted")
        heard = session._stats.frames_in
        say(session, transport)
        await until(lambda: words(transport), "a word")
        first = next(event for event in transport.events if event["type"] == "text")
        assert first["at_ms"] == (session.user_audio.frames_before + 1) * FRAME_MS
        assert heard * FRAME_MS >= session.user_audio.frames_before * FRAME_MS > 0
        session.on_command(transport, Reset())
        seen = len(words(transport))
        say(session, transport)
        await until(lambda: len(words(transport)) > seen, "a word after the reset")
        after = [event for event in transport.events if event["type"] == "text"][seen]
        assert after["at_ms"] == FRAME_MS


async def test_while_there_is_no_engine_the_microphone_goes_on_unheard_and_silence_answers() -> None:
    gate = threading.Event()
    async with registry(partial(FaultyModel, 1), partial(gated, gate)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        await break_it(session, transport)
        await until_told(transport, "engine_failed")
        before = (await session.stats()).frames_dropped
        played = len(transport.played)
        await until(lambda: session._stats.frames_refused > before + 3, "frames without a reader")
        assert len(transport.played) >= played + 3
        assert not np.concatenate(transport.played[played:]).any()
        session.on_command(transport, Reset())
        assert (await session.stats()).frames_dropped > before
        assert session.state is SessionState.LISTENING
        gate.set()
        await until_told(transport, "restarted")


def gated(gate: threading.Event) -> StreamingModel:
    assert gate.wait(30)
    return CountingModel(1)


async def test_a_voice_that_broke_off_is_over_and_what_waits_of_it_is_not_played() -> None:
    async with registry(partial(FaultyModel, 1)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        await until(lambda: loud(session, transport) is SessionState.SPEAKING, "a voice")
        await break_it(session, transport)
        await until_told(transport, "restarted")
        states = [event["state"] for event in transport.events if event["type"] == "state"]
        assert states == ["speaking", "listening", "listening"]
        assert transport.cleared == 1


def loud(session: Session, transport: HandTransport) -> SessionState:
    say(session, transport)
    return session.state


async def test_a_client_that_is_away_learns_of_it_when_it_is_back() -> None:
    """In order, with the token that it had, behind what it had seen."""
    async with registry(partial(FaultyModel, 1)) as made:
        first, second = HandTransport(), HandTransport()
        session, token = await opened(made, first)
        assert token is not None
        session.on_gone(first, orderly=False)
        assert session.state is SessionState.WAITING
        stream = session._slot.stream
        assert stream is not None
        stream.push(np.full(FRAME_SAMPLES, MAGIC, np.float32))
        await until(lambda: session._slot.stream not in (None, stream), "another slot")

        async def reconnect() -> tuple[Transport, str]:
            return second, "welcome"

        await session.resume(token, "request", None, reconnect)
        connect(session, second)
        assert kinds(second) == ["connected", "engine_failed", "engine_failed", "restarted"]
        say(session, second)
        await until(lambda: words(second)[:1] == [1], "a word")


@pytest.mark.parametrize("end", ["bye", "server"])
async def test_one_that_ends_meanwhile_leaves_nothing(end: str) -> None:
    gate = threading.Event()
    async with registry(partial(FaultyModel, 1), partial(gated, gate)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        await break_it(session, transport)
        await until_told(transport, "engine_failed")
        if end == "bye":
            session.on_command(transport, Bye())
        else:
            session.shut_down()
        await until(lambda: session.state is SessionState.ENDED and transport.closed, "the end")
        gate.set()
        await engine_of(made).wait_ready()
        assert engine_of(made).slots_used == 0


async def test_a_model_that_cannot_be_loaded_again_is_the_end() -> None:
    def missing() -> StreamingModel:
        raise ModelLoadError("The disk is gone.", "Look for it.")

    async with registry(partial(FaultyModel, 1), missing) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        await break_it(session, transport)
        await until(lambda: transport.closed, "the end")
        assert kinds(transport) == ["connected", "engine_failed", "engine_failed"]  # an error, and the end
        assert transport.events[-1] == transport.events[-1] | {"type": "disconnected", "reason": "engine_failed"}
        assert session.end_reason is EndReason.ENGINE_FAILED


async def test_none_within_the_grace_is_the_end() -> None:
    gate = threading.Event()
    async with registry(partial(FaultyModel, 1), partial(gated, gate), resume_grace_s=0.3) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        await break_it(session, transport)
        await until(lambda: transport.closed, "the end")
        assert session.end_reason is EndReason.ENGINE_FAILED
        gate.set()


async def test_without_a_grace_there_is_no_other_slot() -> None:
    async with registry(partial(FaultyModel, 1), resume_grace_s=0) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        await break_it(session, transport)
        await until(lambda: transport.closed, "the end")
        assert [event["type"] for event in transport.events[-2:]] == ["error", "disconnected"]


async def test_a_conversation_that_breaks_every_engine_gets_no_fourth() -> None:
    async with registry(partial(FaultyModel, 1)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        for count in (1, 2):
            await break_it(session, transport)
            await until_told(transport, "restarted", count)
        await break_it(session, transport)
        await until(lambda: transport.closed, "the end")
        assert session.end_reason is EndReason.ENGINE_FAILED
        await engine_of(made).wait_ready()
        async with made.opening(None, OfferOptions(), VISITOR) as other:
            other.attach(HandTransport())
            other.start()


async def test_one_that_has_not_begun_is_refused() -> None:
    """Its client has no answer yet: it can be told to come back."""
    async with registry(partial(FaultyModel, 1)) as made, contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(made.opening(None, OfferOptions(), VISITOR))
        assert session._slot.stream is not None
        session._slot.stream.push(np.full(FRAME_SAMPLES, MAGIC, np.float32))
        await until(lambda: engine_of(made).restarts == 1, "the engine's end")
        session.attach(HandTransport())
        with pytest.raises(EngineUnavailable):
            session.start()


async def test_a_client_that_went_on_elsewhere_has_no_other_slot_here() -> None:
    async with registry(partial(CountingModel, 1)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        assert session._slot.stream is not None
        session._slot.stream.close()
        session.on_engine_error(ResumedElsewhere())
        await until(lambda: transport.closed, "the end")
        assert "resumed_elsewhere" in kinds(transport)


async def test_words_that_are_heard_keep_their_place_in_time() -> None:
    """A transcription: the word that was open ends, and those after it count on, behind the silence that the model
    wants first."""
    async with registry(partial(Scribe, 1)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)

        def heard() -> list[dict[str, Any]]:
            return [event for event in transport.events if event["type"] == "word"]

        async def speak(*numbers: int) -> None:
            for number in numbers:
                before = session._stats.frames_in
                await until(lambda number=number, before=before: take(number, before), "room for a frame")  # type: ignore[misc]

        def take(number: int, before: int) -> bool:
            session.on_audio(transport, numbered(number), session._clock())
            return session._stats.frames_in > before

        await speak(7, 0, 0, 0)
        await until(heard, "a word")
        await speak(BREAK)
        await until_told(transport, "restarted")
        stream = session._slot.stream
        assert stream is not None
        before = session._stats.frames_in
        await speak(8, 0, 0, 0)
        await until(lambda: len(heard()) == 2, "a word after it")
        assert [event["text"] for event in heard()] == ["7", "8"]
        assert heard()[0]["start_ms"] == 0
        assert before * FRAME_MS <= heard()[1]["start_ms"] <= (before + PREFIX_FRAMES + 1) * FRAME_MS


async def test_another_engine_of_a_pool_takes_its_place_at_once() -> None:
    """The engine has ended, and the pool has passed it on: the other has had room all the time."""
    async with pool() as here, contextlib.AsyncExitStack() as stack:
        first = stack.enter_context(served(slots=1, pool=here.address, name="first"))
        engine = PooledEngine("fake", Directory(here.address, KEY), _client, Metrics())
        engine.start()
        stack.push_async_callback(engine.close)
        await until(lambda: engine.has_room, "the first")
        async with registry_of(engine) as made:
            transport = HandTransport()
            session, _ = await opened(made, transport)
            stack.enter_context(served(slots=1, pool=here.address, name="second"))
            await until(lambda: engine.has_room, "the second")
            first.stop()
            await until_told(transport, "restarted")
            say(session, transport)
            await until(lambda: words(transport)[-1:] == [1], "a word")
            assert (engine.state, engine.slots_used) == (EngineState.READY, 1)
            assert engine.waiting() == 0


async def test_an_engine_that_a_pool_starts_meanwhile_is_taken() -> None:
    """The session counts as one that waits, and as one only, however often it asks."""
    async with pool() as here, contextlib.AsyncExitStack() as stack:
        first = stack.enter_context(served(slots=1, pool=here.address, name="first"))
        engine = PooledEngine("fake", Directory(here.address, KEY), _client, Metrics())
        engine.start()
        stack.push_async_callback(engine.close)
        await until(lambda: engine.has_room, "the first")
        async with registry_of(engine) as made:
            transport = HandTransport()
            session, _ = await opened(made, transport)
            first.stop()
            await until_told(transport, "engine_failed")
            await until(lambda: engine.waiting() == 1, "one that waits")
            stack.enter_context(served(slots=1, pool=here.address, name="second"))
            await until_told(transport, "restarted")
            assert engine.waiting() == 0
            assert session.state is SessionState.LISTENING


def _client(service: str, address: str) -> EngineClient:
    return EngineClient(service, partial(RemoteLink, address, KEY), Metrics())


async def test_another_media_node_takes_it_over_with_the_model_that_it_has_now() -> None:
    """By the token that its client had all the time; times count on there as well."""
    async with contextlib.AsyncExitStack() as stack:
        first = stack.enter_context(served(slots=2))
        a, b = [await stack.enter_async_context(node_at(first.address)) for _ in range(2)]
        transport, back = HandTransport(), HandTransport()
        session, token = await opened(a, transport)
        assert token is not None
        say(session, transport)
        await until(lambda: words(transport) == [1])
        first.stop()
        stack.enter_context(served(slots=2, address=first.address))
        await until_told(transport, "restarted")
        say(session, transport)
        await until(lambda: words(transport)[-1:] == [1], "a word of the second")
        last_ms = max(event["at_ms"] for event in transport.events if event["type"] == "text")
        await until(lambda: engine_of(b).ready and engine_of(b).restarts, "the second, known to the other node")
        await memo_has_arrived(a)
        after, _ = await come_back(b, session.id.text, token, back)
        say(after, back)
        await until(lambda: words(back), "a word")
        assert words(back)[0] > 1
        text = next(event for event in back.events if event["type"] == "text")
        assert text["at_ms"] > last_ms


@contextlib.asynccontextmanager
async def node_at(address: str) -> AsyncIterator[Registry]:
    async with running(node(address)) as engine, registry_of(engine) as made:
        yield made
