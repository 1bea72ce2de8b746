"""Sessions that wait for a model that starts: connected before there is a slot, within bounds, and told how long."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from lab.waiting import until
from rtc_server.access.principals import ANONYMOUS, Visitor
from rtc_server.cluster.directory import Directory
from rtc_server.cluster.policy import Terms
from rtc_server.cluster.pooled import PooledEngine
from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import StreamingModel
from rtc_server.engine.remote import RemoteLink
from rtc_server.errors import EngineStarting, EngineUnavailable, ModelLoadError, ServerFull
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import Bye, OfferOptions, Ping, Starting
from rtc_server.sessions.registry import Registry
from rtc_server.sessions.session import Session
from rtc_server.sessions.starting import StartingNotice
from rtc_server.sessions.state import EndReason, SessionState
from rtc_server.sessions.transport import Transport
from tests.cluster.test_pool import Shelf
from tests.sessions.test_engine_lost import kinds, registry_of
from tests.sessions.test_session import VISITOR, connect, say, words
from tests.support.engines import Ear, Loads, running
from tests.support.fake_models import MAGIC, CountingModel, FaultyModel
from tests.support.pools import pool
from tests.support.scribe import Scribe, numbered
from tests.support.served import KEY, served
from tests.support.transport import HandTransport

WAIT = OfferOptions(wait=True)


@contextlib.asynccontextmanager
async def loading(
    gate: threading.Event, load: Callable[[], StreamingModel] = lambda: CountingModel(1), **settings: Any
) -> AsyncIterator[Registry]:
    """A server whose model is loaded when ``gate`` opens."""

    def loaded() -> StreamingModel:
        assert gate.wait(30)
        return load()

    engine = EngineClient("dialogue", partial(LocalLink, loaded), Metrics())
    engine.start()
    try:
        async with registry_of(engine, **settings) as made:
            yield made
    finally:
        gate.set()
        await engine.close()


async def opened(registry: Registry, transport: HandTransport, visitor: Visitor = VISITOR) -> tuple[Session, str]:
    async with registry.opening(None, WAIT, visitor) as session:
        session.attach(transport)
        token = session.start()
    assert token is not None
    connect(session, transport)
    return session, token


async def test_it_connects_at_once_and_talks_when_there_is_a_model() -> None:
    gate = threading.Event()
    async with loading(gate) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        assert [(event["type"], event["eta_ms"]) for event in transport.events] == [("starting", None)]
        assert (session.state, session.awaits_slot) == (SessionState.LISTENING, True)
        say(session, transport)
        session.on_command(transport, Ping("mine"))
        gate.set()
        await until(lambda: not session.awaits_slot, "a slot")
        assert [event["type"] for event in transport.events if event["type"] != "stats"] == [
            "starting",
            "pong",
            "connected",
        ]
        say(session, transport)
        await until(lambda: words(transport)[:1] == [1], "a word")
        first = next(event for event in transport.events if event["type"] == "text")
        assert first["at_ms"] == 80


async def test_those_who_wait_are_counted() -> None:
    def waiting() -> float | None:
        return metrics.registry.get_sample_value("rtc_sessions_waiting", {"service": "dialogue"})

    gate, metrics = threading.Event(), Metrics()
    async with loading(gate, lambda: CountingModel(2), metrics=metrics) as made:
        assert waiting() == 0
        first, _ = await opened(made, HandTransport())
        second, _ = await opened(made, HandTransport())
        assert waiting() == 2
        first.end(EndReason.DELETED)
        await until(lambda: waiting() == 1, "one to have gone")
        gate.set()
        await until(lambda: waiting() == 0, "a slot")
        assert not second.awaits_slot


async def test_one_that_does_not_ask_for_it_is_refused_and_so_is_one_too_many() -> None:
    """There is a bound for all, one for an address, and a server may have no such places at all."""
    gate = threading.Event()
    async with loading(gate, max_waiting=3) as made:
        with pytest.raises(EngineUnavailable):
            made.opening(None, OfferOptions(), VISITOR)
        for _ in range(3):
            await opened(made, HandTransport())
        with pytest.raises(EngineUnavailable):
            await opened(made, HandTransport())
        assert len(made) == 3
    gate = threading.Event()
    async with loading(gate) as made:
        for _ in range(8):
            await opened(made, HandTransport())
        with pytest.raises(EngineUnavailable):
            await opened(made, HandTransport())
        await opened(made, HandTransport(), Visitor(ANONYMOUS, "192.0.2.2"))
    async with loading(threading.Event(), wait_s=0) as made:
        with pytest.raises(EngineUnavailable):
            await opened(made, HandTransport())


async def test_those_who_wait_longer_than_they_may_are_sent_away_with_a_reason() -> None:
    async with loading(threading.Event(), wait_s=0.2) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        await until(lambda: transport.closed, "the end")
        assert session.end_reason is EndReason.ENGINE_UNAVAILABLE
        assert kinds(transport) == ["engine_unavailable", "engine_unavailable"]  # an error, and the end
        assert transport.events[-1]["type"] == "disconnected"


async def test_a_model_that_cannot_be_loaded_is_not_waited_for() -> None:
    gate = threading.Event()

    def missing() -> StreamingModel:
        raise ModelLoadError("There is no such model.", "Check the name.")

    async with loading(gate, missing) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        gate.set()
        await until(lambda: transport.closed, "the end")
        assert session.end_reason is EndReason.ENGINE_UNAVAILABLE
        with pytest.raises(EngineUnavailable):
            await opened(made, HandTransport())


async def test_one_that_leaves_while_it_waits_takes_no_slot() -> None:
    gate = threading.Event()
    async with loading(gate) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        session.on_command(transport, Bye())
        await until(lambda: transport.closed, "the end")
        gate.set()
        engine = made.admission.engines["dialogue"]
        await engine.wait_ready()
        (await engine.open(Ear())).close()


async def test_one_whose_path_is_lost_while_it_waits_comes_back_to_what_there_is() -> None:
    gate = threading.Event()
    async with loading(gate) as made:
        first, second = HandTransport(), HandTransport()
        session, token = await opened(made, first)
        session.on_gone(first, orderly=False)
        assert session.state is SessionState.WAITING
        gate.set()
        await until(lambda: not session.awaits_slot, "a slot")

        async def reconnect() -> tuple[Transport, str]:
            return second, "welcome"

        await session.resume(token, "request", None, reconnect)
        connect(session, second)
        assert kinds(second) == ["connected"]
        say(session, second)
        await until(lambda: words(second)[:1] == [1], "a word")


async def test_a_slot_may_be_there_before_the_client_is() -> None:
    gate = threading.Event()
    async with loading(gate) as made:
        transport = HandTransport()
        async with made.opening(None, WAIT, VISITOR) as session:
            session.attach(transport)
            session.start()
        gate.set()
        await until(lambda: not session.awaits_slot, "a slot")
        assert transport.events == []
        connect(session, transport)
        assert kinds(transport) == ["connected"]


async def test_a_transcription_that_waited_begins_with_its_first_word_at_the_beginning() -> None:
    gate = threading.Event()
    async with loading(gate, partial(Scribe, 1)) as made:
        transport = HandTransport()
        session, _ = await opened(made, transport)
        gate.set()
        await until(lambda: not session.awaits_slot, "a slot")
        for number in (7, 0, 0, 0):
            session.on_audio(transport, numbered(number), session._clock())
            await asyncio.sleep(0.08)
        await until(lambda: [event for event in transport.events if event["type"] == "word"], "a word")
        word = next(event for event in transport.events if event["type"] == "word")
        assert (word["text"], word["start_ms"]) == ("7", 0)


async def test_an_engine_that_is_full_and_not_starting_refuses_all_the_same() -> None:
    gate = threading.Event()
    gate.set()
    async with loading(gate) as made:
        await made.admission.engines["dialogue"].wait_settled()
        await opened(made, HandTransport())
        with pytest.raises(ServerFull):
            await opened(made, HandTransport())


async def test_what_an_engine_took_to_start_is_what_is_told_of_the_next() -> None:
    """In the refusal of those who do not wait as well."""
    gate = threading.Event()

    def again() -> StreamingModel:
        assert gate.wait(30)
        return CountingModel(1)

    loads = Loads(partial(FaultyModel, 1), again)
    async with running(EngineClient("dialogue", partial(LocalLink, loads), Metrics())) as engine:
        assert engine.starts_in_s is None
        engine._supervisor._start_took_s = 50.0
        stream = await engine.open(Ear())
        stream.push(numbered(round(MAGIC * 1000)))
        await until(lambda: engine.coming and engine.starts_in_s is not None, "another start")
        async with registry_of(engine) as made:
            transport = HandTransport()
            await opened(made, transport)
            assert 30_000 < transport.events[0]["eta_ms"] <= 50_500, "with the pause before it"
            with pytest.raises(EngineUnavailable) as refused:
                made.opening(None, OfferOptions(), VISITOR)
            assert 30 <= refused.value.retry_after_s <= 51
            gate.set()
            await until(lambda: "connected" in kinds(transport), "the model")
            assert engine.starts_in_s is None


async def test_a_pool_of_none_starts_an_engine_for_one_that_waits() -> None:
    """It counts as one that waits, as long as it does."""
    shelf = Shelf()
    async with pool({"fake": Terms(0, 1)}, shelf) as here:
        engine = PooledEngine("fake", Directory(here.address, KEY), _client, Metrics())
        engine.start()
        try:
            await engine.wait_settled()
            assert engine.coming
            async with registry_of(engine) as made:
                with pytest.raises(EngineStarting):
                    made.opening(None, OfferOptions(), VISITOR)
                transport = HandTransport()
                session, _ = await opened(made, transport)
                assert transport.events[0]["eta_ms"] > 0
                await until(lambda: shelf.started == 1, "an engine is started")
                with served(slots=1, pool=here.address, name=shelf.there[0]):
                    await until(lambda: "connected" in kinds(transport), "its slot")
                    say(session, transport)
                    await until(lambda: words(transport)[:1] == [1], "a word")
                    assert (engine.waiting(), shelf.started) == (1, 1), "that is the one who was told to come back"
        finally:
            await engine.close()


def _client(service: str, address: str) -> EngineClient:
    return EngineClient(service, partial(RemoteLink, address, KEY), Metrics())


class Estimates:
    """Of an engine, what it says of its start."""

    starts_in_s: float | None = None


def test_an_estimate_is_told_again_when_it_was_wrong() -> None:
    now, engine = [100.0], Estimates()
    as_engine: Engine = engine  # type: ignore[assignment]
    notice = StartingNotice(as_engine, lambda: now[0])
    assert notice.tell() == Starting(None)
    assert not notice.changed
    engine.starts_in_s = 10.0
    assert notice.changed
    assert notice.tell() == Starting(10_000)
    now[0], engine.starts_in_s = 104.0, 6.5
    assert not notice.changed, "it counts the seconds itself"
    engine.starts_in_s = 8.0
    assert notice.changed
    assert notice.tell() == Starting(8_000)
    now[0], engine.starts_in_s = 120.0, 0.0
    assert not notice.changed, "it cannot be sooner than now"
    engine.starts_in_s = None
    assert notice.changed
