"""A session that goes on by another media node: two registries, one engine that both reach over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator

import pytest

from lab.waiting import until
from rtc_server import config
from rtc_server.access.principals import ANONYMOUS, Principal, Visitor
from rtc_server.errors import Draining, ResumeRefused, ServerFull, UnknownSession
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import OfferOptions, Settings
from rtc_server.sessions.admission import Admission
from rtc_server.sessions.memo import RESERVED
from rtc_server.sessions.presence import Resumed
from rtc_server.sessions.registry import Registry
from rtc_server.sessions.session import Session
from rtc_server.sessions.state import EndReason, SessionState
from rtc_server.sessions.transport import Transport
from rtc_server.system.loop_lag import LoopLag
from tests.sessions.test_session import connect, opened, say, words
from tests.support.engines import Ear, running
from tests.support.served import ServedEngine, node, served
from tests.support.transport import HandTransport

VISITOR = Visitor(ANONYMOUS, "192.0.2.1")


@contextlib.asynccontextmanager
async def media_node(engine: ServedEngine, **settings: object) -> AsyncIterator[Registry]:
    metrics, wanted = Metrics(), config.Settings(model="echo", **settings)  # type: ignore[arg-type]
    async with running(node(engine.address)) as client:
        admission = Admission({"dialogue": client}, wanted, LoopLag(wanted.max_lag_ms, metrics))
        made = Registry(admission, wanted, metrics)
        yield made
        await admission.close()
        assert client.slots_used == len(made) == 0


@contextlib.asynccontextmanager
async def two_nodes(slots: int = 2, drain_s: float = 5.0, **settings: object) -> AsyncIterator[tuple[Registry, ...]]:
    with served(slots) as engine:
        async with media_node(engine, drain_s=drain_s) as a, media_node(engine, **settings) as b:
            yield a, b


async def come_back(
    registry: Registry, session_id: str, token: str, transport: HandTransport, visitor: Visitor = VISITOR
) -> tuple[Session, Resumed]:
    async def reconnect() -> tuple[Transport, str]:
        return transport, "welcome"

    session = await registry.resumable(session_id, token, visitor)
    resumed = await session.resume(token, "request", None, reconnect)
    connect(session, transport)
    return session, resumed


async def talked(registry: Registry, frames: int = 2) -> tuple[Session, str, HandTransport]:
    """A conversation in which the model has counted."""
    transport = HandTransport()
    session, token = await opened(registry, transport)
    assert token is not None
    for number in range(1, frames + 1):
        say(session, transport)
        await until(lambda number=number: number in words(transport))  # type: ignore[misc]
    return session, token, transport


async def talked_when_free(registry: Registry) -> None:
    """The slot is given back by one node, and asked for by another: which of the two the engine reads first is open."""
    async with asyncio.timeout(60):
        while True:
            try:
                await talked(registry)
            except ServerFull:
                await asyncio.sleep(0.02)
            else:
                return


async def stopped(registry: Registry) -> None:
    """At once, as a server stops: the engine goes last."""
    await registry.admission.drain(0.0)
    await registry.admission.engines["dialogue"].close()


async def memo_has_arrived(registry: Registry) -> None:
    """What a node says to its engine is read in order; what two nodes say, in any."""
    stream = await registry.admission.engines["dialogue"].open(Ear())
    stream.close()


async def test_the_model_goes_on_where_it_was() -> None:
    """By another id; the node that had the session ends it, and does no harm any more."""
    async with two_nodes() as (a, b):
        before, token, first = await talked(a)
        second = HandTransport()
        after, resumed = await come_back(b, before.id.text, token, second)
        assert resumed.answer == "welcome"
        assert resumed.token not in (None, token)
        assert after.id.text != before.id.text
        assert second.events[0] == second.events[0] | {"type": "connected", "resumed": True, "session": after.id.text}
        await until(lambda: before.state is SessionState.ENDED, "the end at the first node")
        assert [event["code"] for event in first.events if event["type"] == "error"] == ["resumed_elsewhere"]
        last = words(first)[-1]
        say(after, second)
        await until(lambda: last + 1 in words(second), "the next number")
        assert words(second)[0] == last + 1


async def test_numbers_and_times_go_on_and_so_do_the_clients_settings() -> None:
    async with two_nodes() as (a, b):
        before, token, first = await talked(a)
        left_at = time.monotonic()
        before.on_command(first, Settings(muted=True, stats_interval_ms=700))
        await memo_has_arrived(a)
        on_the_way_ms = (time.monotonic() - left_at) * 1000  # a memo's age counts from when it came
        frames = max(event["at_ms"] for event in first.events if event["type"] == "text")
        seen = max(event["seq"] for event in first.events if "seq" in event)
        age_ms = before.age_ms
        second = HandTransport()
        after, _ = await come_back(b, before.id.text, token, second)
        assert after.user_audio.microphone.muted
        assert after._stats_interval_ms == 700
        assert after.age_ms > age_ms - on_the_way_ms
        say(after, second)
        await until(lambda: len(words(second)) > 0, "a word")
        text = next(event for event in second.events if event["type"] == "text")
        assert text["at_ms"] > frames
        assert seen < text["seq"] <= seen + 2 * RESERVED
        assert text["time_ms"] > max(event["time_ms"] for event in first.events) - on_the_way_ms


async def test_it_can_go_on_from_node_to_node() -> None:
    """Each answer brings the token for the next time; those before are worth nothing."""
    async with two_nodes() as (a, b):
        session, token, transport = await talked(a)
        for registry in (b, a, b):
            back = HandTransport()
            former, spent = session.id.text, token
            session, resumed = await come_back(registry, former, token, back)
            assert resumed.token is not None
            token = resumed.token
            other = a if registry is b else b
            await until(lambda other=other: len(other) == 0, "the end at the node before")  # type: ignore[misc]
            say(session, back)
            await until(lambda back=back: words(back), "a word")  # type: ignore[misc]
            assert words(back)[0] == words(transport)[-1] + 1
            transport = back
            with pytest.raises(UnknownSession):
                await other.resumable(former, spent, VISITOR)


async def test_a_client_whose_answer_was_lost_asks_again() -> None:
    """By the id that it knows, with the same request: it gets the same answer."""
    async with two_nodes() as (a, b):
        before, token, _ = await talked(a)
        back = HandTransport()

        async def reconnect() -> tuple[Transport, str]:
            return back, "welcome"

        asked = [b.resumable(before.id.text, token, VISITOR) for _ in range(3)]
        sessions = await asyncio.gather(*asked)
        assert len(set(sessions)) == len(b) == 1
        answers = [await sessions[0].resume(token, "request", None, reconnect) for _ in range(2)]
        again = await b.resumable(before.id.text, token, VISITOR)
        answers.append(await again.resume(token, "request", None, reconnect))
        assert len(set(answers)) == 1
        with pytest.raises(ResumeRefused):
            await again.resume(token, "another request", None, reconnect)


async def test_a_node_that_dies_before_the_client_is_back_loses_nothing() -> None:
    async with two_nodes() as (a, b):
        before, token, first = await talked(a)
        waiting = await b.resumable(before.id.text, token, VISITOR)
        assert waiting.state is SessionState.WAITING
        await until(lambda: len(a) == 0, "the end at the first node")
        await memo_has_arrived(b)
        back = HandTransport()
        session, _ = await come_back(a, before.id.text, token, back)
        say(session, back)
        await until(lambda: words(back), "a word")
        assert words(back)[0] == words(first)[-1] + 1


async def test_who_may_not() -> None:
    """A wrong token, another session's id, another client: to each it looks as if there were none, and the session
    that is there goes on."""
    async with two_nodes() as (a, b):
        session, token, transport = await talked(a)
        stranger = dataclasses.replace(VISITOR, principal=Principal("key/bob"))
        for asked in (
            (session.id.text, token[:-1] + "!", VISITOR),
            (session.id.text + "x", token, VISITOR),
            (session.id.text, token, stranger),
            ("", "", VISITOR),
            ("\ud800" * 1000, "\0", VISITOR),
        ):
            with pytest.raises(UnknownSession):
                await b.resumable(*asked)
        assert len(b) == len(b.admission) == 0
        say(session, transport)
        await until(lambda: 3 in words(transport))


async def test_a_session_that_cannot_be_resumed_cannot_be_taken_over() -> None:
    async with two_nodes() as (a, b):
        transport = HandTransport()
        async with a.opening(None, OfferOptions(), VISITOR, resumable=False) as session:
            session.attach(transport)
            assert session.start() is None
        with pytest.raises(UnknownSession):
            await b.resumable(session.id.text, "", VISITOR)


async def test_a_session_that_has_ended_is_over_everywhere() -> None:
    async with two_nodes() as (a, b):
        session, token, _ = await talked(a)
        await session.end(EndReason.BYE)
        for registry in (a, b):
            with pytest.raises(UnknownSession):
                await registry.resumable(session.id.text, token, VISITOR)


async def test_a_node_that_has_no_place_takes_none_over() -> None:
    """The client may find another one that has: its conversation is not lost by the refusal."""
    async with two_nodes(max_sessions=1) as (a, b):
        session, token, transport = await talked(a)
        other, _ = await opened(b, HandTransport())
        with pytest.raises(ServerFull):
            await b.resumable(session.id.text, token, VISITOR)
        await other.end(EndReason.BYE)
        b.admission.draining = True
        with pytest.raises(Draining):
            await b.resumable(session.id.text, token, VISITOR)
        b.admission.draining = False
        say(session, transport)
        await until(lambda: 3 in words(transport))
        await come_back(b, session.id.text, token, HandTransport())


async def test_a_client_that_does_not_come_after_all_is_not_waited_for_without_end() -> None:
    async with two_nodes(slots=1, resume_grace_s=0.3) as (a, b):
        session, token, _ = await talked(a)
        waiting = await b.resumable(session.id.text, token, VISITOR)
        await until(lambda: waiting.state is SessionState.ENDED, "the end of the wait")
        assert waiting.end_reason is EndReason.PEER_LOST
        await until(lambda: len(a) == 0)
        await talked_when_free(a)


async def test_many_events_do_not_use_up_the_numbers_of_the_node_that_takes_over() -> None:
    async with two_nodes() as (a, b):
        before, token, first = await talked(a)
        for _ in range(3 * RESERVED):
            before.recovered(ServerFull())
        await until(lambda: before._memo.covers(before.outbox.last), "a memo of later")
        await memo_has_arrived(a)
        last = before.outbox.last
        after, _ = await come_back(b, before.id.text, token, second := HandTransport())
        say(after, second)
        await until(lambda: words(second), "a word")
        assert min(event["seq"] for event in second.events if "seq" in event) > last
        assert words(second)[0] == words(first)[-1] + 1


async def test_the_clients_of_a_node_that_stops_go_on_by_another_one() -> None:
    """They are told to, and go on here until they are there; then the node has nothing left, and stops at once."""
    async with two_nodes(drain_s=60.0) as (a, b):
        before, token, first = await talked(a)
        drain = asyncio.create_task(a.admission.drain(60.0))
        await until(lambda: "moving" in {event["type"] for event in first.events}, "the word")
        (moving,) = [event for event in first.events if event["type"] == "moving"]
        assert 58_000 <= moving["in_ms"] <= 60_000
        say(before, first)
        await until(lambda: 3 in words(first), "the voice, meanwhile")
        second = HandTransport()
        after, _ = await come_back(b, before.id.text, token, second)
        await asyncio.wait_for(drain, 10)
        assert before.end_reason is EndReason.MOVED
        told = [event["type"] for event in first.events]  # the model may have said more in between
        assert [each for each in told if each in ("moving", "disconnected")] == ["moving", "disconnected"]
        assert told[-1] == "disconnected"
        last = words(first)[-1]
        say(after, second)
        await until(lambda: words(second), "a word")
        assert words(second)[0] == last + 1


async def test_a_client_that_has_not_come_back_in_time_finds_its_conversation_all_the_same() -> None:
    """So does one whose path is dead when the node stops, or dies while it does: they are not waited for."""
    async with two_nodes(slots=3, drain_s=0.0) as (a, b):
        left = [await talked(a, frames) for frames in (1, 2, 3)]
        left[0][0].presence.lose_path()
        drain = asyncio.create_task(a.admission.drain(30.0))
        await until(lambda: left[0][0].state is SessionState.ENDED, "the end of the one that is away")
        left[1][0].presence.lose_path()
        await until(lambda: left[1][0].state is SessionState.ENDED, "the end of the one that went")
        await a.admission.close()
        await drain
        await a.admission.engines["dialogue"].close()
        for before, token, first in left:
            assert before.end_reason is EndReason.SERVER_SHUTDOWN
            after, _ = await come_back(b, before.id.text, token, back := HandTransport())
            say(after, back)
            await until(lambda back=back: words(back), "a word")  # type: ignore[misc]
            assert words(back)[0] > words(first)[-1], "it goes on, and has heard silence for as long as none was sent"


async def test_a_client_that_cannot_come_back_is_told_of_the_end() -> None:
    """Its slot is free at once."""
    async with two_nodes(slots=1) as (a, b):
        transport = HandTransport()
        async with a.opening(None, OfferOptions(), VISITOR, resumable=False) as session:
            session.attach(transport)
            session.start()
        connect(session, transport)
        await stopped(a)
        assert [event.get("code") for event in transport.events if event["type"] == "error"] == ["draining"]
        assert "moving" not in {event["type"] for event in transport.events}
        await talked_when_free(b)


async def test_one_that_says_goodbye_while_the_node_stops_is_over() -> None:
    async with two_nodes(slots=1) as (a, b):
        session, token, _ = await talked(a)
        there = b.admission.engines["dialogue"]
        await until(lambda: not there.has_room, "its slot, known to the other node")
        drain = asyncio.create_task(a.admission.drain(60.0))
        await asyncio.wait_for(session.end(EndReason.BYE), 10)
        await asyncio.wait_for(drain, 10)
        await a.admission.engines["dialogue"].close()
        await until(lambda: there.has_room, "what the first node said last has come")
        with pytest.raises(UnknownSession):
            await b.resumable(session.id.text, token, VISITOR)
        await talked_when_free(b)
