"""A stream that moves to another engine: its listener hears no frame twice and misses none, and what fails costs the
copy."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from lab.waiting import until
from rtc_server.engine.client import EngineClient
from rtc_server.engine.messages import Import, Opened, Put, Ready
from rtc_server.engine.model import StreamingModel
from rtc_server.engine.moving import NotMoved, move
from rtc_server.engine.stream import WINDOW_FRAMES, EngineStream
from rtc_server.errors import EngineFailed, EngineUnavailable, ServerError, ServerFull
from tests.support.engines import READY, Ear, Scripted, frame, local, running
from tests.support.fake_models import MAGIC, CountingModel, MovingModel

KEY = b"k" * 16
Load = Callable[[], StreamingModel]


@contextlib.asynccontextmanager
async def engines(one: Load = lambda: MovingModel(2), other: Load = lambda: MovingModel(3)) -> AsyncIterator[Engines]:
    async with running(local(one)) as old, running(local(other)) as new:
        yield Engines(old, new)


@dataclasses.dataclass
class Engines:
    old: EngineClient
    new: EngineClient


class Talk:
    """A stream, and the one that speaks into it and listens: frame by frame, as fast as they are answered."""

    def __init__(self, client: EngineClient) -> None:
        self.ear = Ear()
        self._client = client
        self._said: list[float] = []

    async def open(self, spare: bool = False) -> EngineStream:
        self.stream = await self._client.open(self.ear, spare)
        return self.stream

    async def say(self, frames: int) -> None:
        for _ in range(frames):
            self._said.append((len(self._said) % 7) / 16)
            assert await self.stream.feed(frame(self._said[-1]))
            await asyncio.sleep(0)

    async def say_during(self, task: asyncio.Task[None], pace_s: float = 0.01) -> None:
        """One frame after the other until the task is done, by default eight times as fast as one talks."""
        while not task.done():
            await self.say(1)
            await asyncio.wait([task], timeout=pace_s)

    async def checked(self) -> None:
        """All that was said is answered, each frame once, by a model that has heard all of them."""
        await self.stream.drained()
        assert self.ear.texts == [f" {number}" for number in range(1, len(self._said) + 1)]
        assert self.ear.frames == list(range(1, len(self._said) + 1))
        sums = [sum(self._said[: number + 1]) % 1.0 for number in range(len(self._said))]
        assert [None if pcm is None else float(pcm[1]) for pcm in self.ear.pcm] == sums
        assert not self.ear.errors


@pytest.mark.parametrize("padding", [0, 100_000, 5_000_000])
async def test_a_stream_moves_while_its_user_talks(padding: int) -> None:
    async with engines(*[lambda: MovingModel(2, padding=padding)] * 2) as both:
        talk = Talk(both.old)
        await talk.open()
        await talk.say(10)
        moving = asyncio.create_task(move(talk.stream, both.old, both.new))
        await talk.say_during(moving)
        await moving
        assert (both.old.slots_used, both.new.slots_used) == (0, 1)
        await talk.say(10)
        await talk.checked()
        await move(talk.stream, both.new, both.old)
        await talk.say(3)
        await talk.checked()
        talk.stream.close()
        assert not both.old.slots_used


async def test_a_stream_in_which_nothing_is_said_moves_as_well() -> None:
    async with engines() as both:
        talk = Talk(both.old)
        await talk.open()
        await move(talk.stream, both.old, both.new)
        await talk.say(2)
        await talk.checked()
        assert both.new.slots_used == 1


async def test_the_key_of_its_slot_and_what_it_was_lent_for_move_with_it() -> None:
    async with engines(other=lambda: MovingModel(1)) as both:
        talk = Talk(both.old)
        stream = await talk.open(spare=True)
        await talk.say(4)
        await stream.drained()
        stream.lock(hashlib.sha256(KEY).digest(), b"memo")
        await move(stream, both.old, both.new)
        assert both.new.slots_lent == 1
        assert not both.old.slots_lent
        again = await both.new.adopt(KEY, Ear())
        assert (again.opened.heard, again.opened.memo) == (4, b"memo")
        again.close()
        lent = Talk(both.old)
        await move(await lent.open(spare=True), both.old, both.new)
        await both.new.open(Ear())
        assert isinstance(lent.ear.errors[0], ServerFull)


async def test_a_copy_that_is_too_slow_to_catch_up_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.moving._CATCH_UP_S", 0.1)
    monkeypatch.setattr("rtc_server.engine.moving._MOST_BEHIND", 500)
    async with engines(other=lambda: SlowMovingModel(2)) as both:
        talk = Talk(both.old)
        await talk.open()
        moving = asyncio.create_task(move(talk.stream, both.old, both.new))
        await talk.say_during(moving, pace_s=0.005)
        await moving
        await talk.say(3)
        await talk.checked()


async def test_what_was_kept_while_it_stood_still_is_heard_where_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.engine.moving._CATCH_UP_S", -1.0)
    async with engines(other=lambda: StuckMovingModel(2)) as both:
        talk = Talk(both.old)
        await talk.open()
        await talk.say(2)
        moving = asyncio.create_task(move(talk.stream, both.old, both.new))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while talk.stream.in_flight < WINDOW_FRAMES:  # it stands still
                    await talk.say(1)
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)
        StuckMovingModel.gate.set()
        await talk.say(3)
        await talk.checked()


@pytest.mark.parametrize(
    ("load", "error", "why"),
    [
        (lambda: MovingModel(2, row_format="another"), NotMoved, "same model"),
        (lambda: CountingModel(2), NotMoved, "same model"),
        (lambda: MovingModel(2, padding=90_000), NotMoved, "cannot read"),
        (lambda: MovingModel(2, padding=200_000), NotMoved, "another size"),
        (lambda: MovingModel(1), ServerFull, "slot|room|busy|taken"),
    ],
)
async def test_where_it_cannot_go_it_stays(load: Load, error: type[Exception], why: str) -> None:
    async with engines(other=load) as both:
        if error is ServerFull:
            await both.new.open(Ear())
        used = both.new.slots_used
        talk = Talk(both.old)
        await talk.open()
        await talk.say(5)
        moving = asyncio.create_task(move(talk.stream, both.old, both.new))
        await talk.say_during(moving)
        with pytest.raises(error, match=why):
            await moving
        await talk.say(5)
        await talk.checked()
        assert (both.old.slots_used, both.new.slots_used) == (1, used)


async def test_a_copy_that_makes_something_else_is_thrown_away() -> None:
    """The row is copied after its first frame: the others, which wait already, are heard by both."""
    model = StuckMovingModel(2)
    model.gate = threading.Event()
    async with engines(lambda: model, lambda: MovingModel(2, drift=0.25)) as both:
        talk = Talk(both.old)
        await talk.open()
        await talk.say(WINDOW_FRAMES)
        moving = asyncio.create_task(move(talk.stream, both.old, both.new))
        await asyncio.sleep(0)
        model.gate.set()
        with pytest.raises(NotMoved, match="something else"):
            await moving
        await talk.say(5)
        await talk.checked()
        assert (both.old.slots_used, both.new.slots_used) == (1, 0)


class HalfWay:
    """A move that the test holds in the middle: the state is on its way to ``scripted``, which does not answer."""

    def __init__(self, old: EngineClient, scripted: Scripted) -> None:
        self.talk = Talk(old)
        self.old = old
        self.scripted = scripted

    async def begin(self) -> None:
        await self.talk.open()
        await self.talk.say(3)
        await self.talk.stream.drained()
        self.task = asyncio.create_task(move(self.talk.stream, self.old, self.scripted.client))
        sent = self.scripted.link.sent
        await until(lambda: bool(sent) and isinstance(sent[-1], Import), "the slot is asked for")
        asked = sent[-1]
        assert isinstance(asked, Import)
        self.scripted.link.say(Opened(asked.stream, 0, 1, asked.heard))
        await until(lambda: isinstance(sent[-1], Put), "the state is on its way")


@contextlib.asynccontextmanager
async def half_way(load: Load = lambda: MovingModel(2)) -> AsyncIterator[HalfWay]:
    scripted = Scripted()
    async with running(local(load)) as old, running(scripted.client):
        scripted.link.say(Ready(dataclasses.replace(READY.info, row_format="counting")))
        made = HalfWay(old, scripted)
        await made.begin()
        yield made


async def test_an_engine_that_dies_with_half_a_row_costs_nothing() -> None:
    async with half_way() as held:
        held.scripted.link.end()
        with pytest.raises(NotMoved):
            await held.task
        await held.talk.say(3)
        await held.talk.checked()


async def test_an_engine_that_dies_while_its_row_moves_is_lost_as_ever_and_the_copy_is_given_back() -> None:
    async with half_way(lambda: FaultyMovingModel(2)) as held:
        held.talk.stream.push(frame(MAGIC))
        with pytest.raises(NotMoved):
            await held.task
        assert [type(error) for error in held.talk.ear.errors] == [EngineFailed]
        assert not held.scripted.client.slots_used


@pytest.mark.parametrize("end", ["reset", "close", "cancel"])
async def test_what_ends_meanwhile_does_not_move(end: str) -> None:
    async with half_way() as held:
        if end == "cancel":
            held.task.cancel()
        else:
            getattr(held.talk.stream, end)()
        with pytest.raises((NotMoved, asyncio.CancelledError)):
            await held.task
        assert not held.scripted.client.slots_used
        assert held.old.slots_used == (0 if end == "close" else 1)
        if end != "close":
            texts = len(held.talk.ear.texts)
            held.talk.stream.push(frame())
            await until(lambda: len(held.talk.ear.texts) > texts)
            assert held.talk.ear.texts[-1] == (" 1" if end == "reset" else " 4")


async def test_an_engine_that_is_not_there_is_none_to_move_to() -> None:
    async with engines() as both:
        talk = Talk(both.old)
        await talk.open()
        await both.new.close()
        with pytest.raises(EngineUnavailable):
            await move(talk.stream, both.old, both.new)
        await talk.say(1)
        await talk.checked()


class SlowMovingModel(MovingModel):
    def step(self, pcm, active):  # type: ignore[no-untyped-def]
        time.sleep(0.02)
        return super().step(pcm, active)


class StuckMovingModel(MovingModel):
    """Steps when the gate is open."""

    gate = threading.Event()

    def step(self, pcm, active):  # type: ignore[no-untyped-def]
        assert self.gate.wait(60)
        return super().step(pcm, active)


class FaultyMovingModel(MovingModel):
    """Raises when a row hears :data:`MAGIC` first."""

    def step(self, pcm, active):  # type: ignore[no-untyped-def]
        if (pcm[active, 0] == MAGIC).any():
            raise RuntimeError("the device is gone")
        return super().step(pcm, active)


def test_a_refusal_is_an_error_for_clients_and_a_move_that_failed_is_none() -> None:
    assert issubclass(ServerFull, ServerError)
    assert not issubclass(NotMoved, ServerError)
