"""Who gets a place, and what becomes of all places when the server shuts down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from rtc_server.access.principals import ANONYMOUS, NOBODY, Visitor
from rtc_server.config import Settings
from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.engine.local import LocalLink
from rtc_server.engine.messages import StepDone
from rtc_server.errors import (
    Draining,
    Forbidden,
    Overloaded,
    RateLimited,
    ServerError,
    ServerFull,
    TooManyConnections,
    TooManySessions,
    UnknownService,
)
from rtc_server.metrics import Metrics
from rtc_server.protocols.events import OfferOptions
from rtc_server.sessions.admission import Admission
from rtc_server.sessions.registry import Registry
from rtc_server.system.descriptors import Descriptors
from rtc_server.system.loop_lag import LoopLag
from tests.support.engines import Scripted, running
from tests.support.fake_models import CountingModel

SERVICE = "dialogue"
VISITOR = Visitor(ANONYMOUS, "192.0.2.1")
OTHER = Visitor(ANONYMOUS, "192.0.2.2")


@contextlib.asynccontextmanager
async def admission(slots: int = 4, **settings: int) -> AsyncIterator[Admission]:
    metrics = Metrics()
    engine = EngineClient(SERVICE, lambda: LocalLink(lambda: CountingModel(slots)), metrics)
    engine.start()
    await engine.wait_settled()
    wanted = Settings(model="echo", **settings)  # type: ignore[arg-type]
    try:
        yield Admission({SERVICE: engine}, wanted, LoopLag(wanted.max_lag_ms, metrics))
    finally:
        await engine.close()


def never(_: ServerError) -> None:
    raise AssertionError("nothing ends it")


async def stay(at: Admission, seated: asyncio.Event, reasons: list[ServerError]) -> None:
    """Hold a place until the server ends it."""
    ended = asyncio.Event()

    def end(error: ServerError) -> None:
        reasons.append(error)
        ended.set()

    with at.guest(SERVICE, VISITOR, end):
        seated.set()
        await ended.wait()


async def test_a_place_is_held_as_long_as_the_context_lasts() -> None:
    async with admission() as at:
        with at.guest(SERVICE, VISITOR, never):
            assert len(at) == 1
        assert len(at) == 0


async def test_sessions_sockets_and_files_are_counted_together() -> None:
    async with admission(max_sessions=2) as at:
        with at.guest(SERVICE, VISITOR, never), at.guest(SERVICE, VISITOR, never):
            with pytest.raises(ServerFull):
                at.admit(None, OTHER)
            with pytest.raises(ServerFull), at.guest(SERVICE, OTHER, never):
                pass
        assert at.admit(None, OTHER).service == SERVICE


async def test_an_address_has_a_number_of_places() -> None:
    async with admission(sessions_per_address=1) as at:
        with at.guest(SERVICE, VISITOR, never):
            with pytest.raises(TooManySessions):
                at.admit(None, VISITOR)
            at.admit(None, OTHER)


async def test_who_listens_takes_no_place_but_files_and_time() -> None:
    async with admission(max_sessions=1) as at:
        with at.guest(SERVICE, VISITOR, never):
            at.admit_beside()
            assert len(at) == 1
            at._files = Descriptors(100, count=lambda: 91, clock=lambda: 0.0)
            at.admit_beside()
            with pytest.raises(TooManyConnections):  # what was taken counts before it is open
                at.admit_beside()
            at._files = Descriptors(100, count=lambda: 0, clock=lambda: 0.0)
            at.lag.window.crowded = True
            with pytest.raises(Overloaded):
                at.admit_beside()


async def test_who_only_connects_takes_few_places() -> None:
    async with admission(connecting_per_address=1) as at:
        with at.guest(SERVICE, VISITOR, never, connecting=True) as guest:
            with pytest.raises(RateLimited):
                at.admit(None, VISITOR)
            at.admit(None, OTHER)
            guest.connecting = False
            at.admit(None, VISITOR)


@pytest.mark.parametrize(
    ("slow", "fast", "refused"),
    [
        (31, 33, False),  # of 64, the median
        (33, 31, True),
        (31, 0, False),  # too few to tell
        (32, 0, True),
    ],
)
async def test_where_most_steps_are_slow_no_conversation_is_added(slow: int, fast: int, refused: bool) -> None:
    """Sockets and files, which can wait, are let in. The slow ones are 2 ms longer than ``max_step_ms``."""
    scripted = Scripted()
    async with running(scripted.client) as engine:
        settings = Settings(model="echo", max_step_ms=60.0)
        at = Admission({SERVICE: engine}, settings, LoopLag(settings.max_lag_ms, scripted.metrics))
        stream = await scripted.open()
        for seconds in (0.062,) * slow + (0.058,) * fast:
            scripted.link.say(StepDone(seconds, 0, []))
        with pytest.raises(Overloaded) if refused else contextlib.nullcontext():
            at.admit(None, OTHER)
        with at.guest(SERVICE, OTHER, never):
            pass
        stream.close()
        at.admit(None, OTHER)  # refusing it would help no one


@pytest.mark.parametrize(("of_a_row_ms", "refused"), [(9, False), (11, True)])
async def test_a_conversation_is_refused_with_which_a_step_would_be_too_long(of_a_row_ms: int, refused: bool) -> None:
    """Five of 30 ms and so much for each, of which two or three have a frame in each step: a sixth makes all of them 84
    or 96 ms, whose median was 57."""
    scripted = Scripted()
    async with running(scripted.client) as engine:
        settings = Settings(model="echo", max_step_ms=90.0)
        at = Admission({SERVICE: engine}, settings, LoopLag(settings.max_lag_ms, scripted.metrics))
        streams = [await scripted.open(slot) for slot in range(5)]
        for number in range(64):
            rows = 2 + number % 2
            scripted.link.say(StepDone((30 + rows * of_a_row_ms) / 1000, 0, [], rows))
        assert engine.step_p50_ms is not None
        assert engine.step_p50_ms < 60
        assert engine.step_with_another_ms == pytest.approx(30 + 6 * of_a_row_ms)
        with pytest.raises(Overloaded) if refused else contextlib.nullcontext():
            at.admit(None, OTHER)
        for stream in streams[1:]:
            stream.close()
        at.admit(None, OTHER)


async def test_a_service_is_there_and_for_the_client() -> None:
    async with admission() as at:
        with pytest.raises(UnknownService):
            at.admit("nothing", VISITOR)
        with pytest.raises(Forbidden):
            at.admit(SERVICE, Visitor(NOBODY, "192.0.2.1"))


async def test_while_it_drains_no_client_comes_in_by_any_way() -> None:
    async with admission() as at:
        await at.drain(0.0)
        with pytest.raises(Draining):
            at.require_open()
        with pytest.raises(Draining):
            at.admit("nothing", Visitor(NOBODY, "192.0.2.1"))
        with pytest.raises(Draining), at.guest(SERVICE, VISITOR, never):
            pass
        assert len(at) == 0


async def test_the_grace_ends_when_all_have_left() -> None:
    async with admission() as at:
        with at.guest(SERVICE, VISITOR, never):
            draining = asyncio.create_task(at.drain(60.0))
            await asyncio.sleep(0)
            assert at.draining
            assert not draining.done()
        async with asyncio.timeout(10):
            await draining


async def test_what_is_left_after_the_grace_is_ended_and_waited_for() -> None:
    reasons: list[ServerError] = []
    async with admission() as at, asyncio.TaskGroup() as group:
        for _ in range(2):
            seated = asyncio.Event()
            group.create_task(stay(at, seated, reasons))
            await seated.wait()
        await at.drain(0.01)
        assert len(at) == 0
    assert [type(reason) for reason in reasons] == [Draining, Draining]


async def test_an_offer_is_asked_for_once_and_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a session asks when it is called, so that what the client sent can be looked at behind that."""
    asked: list[str | None] = []
    admit = Admission.admit

    def counting(at: Admission, service: str | None, visitor: Visitor, wait: bool = False) -> Engine:
        asked.append(service)
        return admit(at, service, visitor, wait)

    monkeypatch.setattr(Admission, "admit", counting)
    async with admission() as at:
        registry = Registry(at, Settings(model="echo"), Metrics())
        opening = registry.opening(None, OfferOptions(), VISITOR)
        assert asked == [None]
        assert len(at) == 0
        async with opening:
            assert len(at) == 1
        assert asked == [None]
        await at.close()
        assert len(at) == len(registry) == 0
