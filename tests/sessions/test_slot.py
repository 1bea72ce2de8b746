"""A session's slot: when it may be replaced, and how another is waited for. The test plays the engine's part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lab.waiting import until
from rtc_server.engine.messages import Close, LoadFailed, Open, Opened, Pong, Refused
from rtc_server.engine.stream import EngineStream
from rtc_server.errors import EngineFailed, ResumedElsewhere
from rtc_server.sessions.slot import Slot
from tests.support.engines import Ear, Scripted, running


class Owner(Ear):
    """Keeps what it is told: a stream, or None for none."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[EngineStream | None] = []

    async def on_slot(self, stream: EngineStream) -> None:
        self.told.append(stream)

    def on_no_slot(self) -> None:
        self.told.append(None)


def slot_of(engine: Scripted, clock: Callable[[], float] = lambda: 0.0) -> tuple[Slot, Owner]:
    owner = Owner()
    return Slot(engine.client, owner, "0-0-test", clock), owner


def asked(engine: Scripted) -> list[Open]:
    return [message for message in engine.link.sent if isinstance(message, Open)]


async def test_an_engine_that_is_full_is_asked_again_when_it_has_room() -> None:
    engine = Scripted()
    async with running(engine.client):
        slot, owner = slot_of(engine)
        slot.wait(20.0)
        await until(lambda: len(asked(engine)) == 1)
        engine.link.say(Pong(2))  # another media node has both
        engine.link.say(Refused(asked(engine)[0].stream))
        engine.link.say(Pong(2))
        await asyncio.sleep(0)
        assert len(asked(engine)) == 1
        engine.link.say(Pong(1))
        await until(lambda: len(asked(engine)) == 2, "another try")
        engine.link.say(Opened(asked(engine)[1].stream, 1, 7))
        await until(lambda: owner.told, "a slot")
        assert owner.told == [slot.stream]
        slot.close()
        assert engine.client.slots_used == 0


async def test_an_engine_that_only_seems_to_have_room_is_not_asked_as_fast_as_it_answers() -> None:
    engine = Scripted()
    async with running(engine.client):
        slot, owner = slot_of(engine)
        slot.wait(1.0)
        answered = 0
        while not owner.told:
            for question in asked(engine)[answered:]:
                engine.link.say(Refused(question.stream))
                answered += 1
            await asyncio.sleep(0.005)
        assert owner.told == [None]
        assert 2 <= answered <= 6


async def test_none_comes_if_the_model_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Scripted()
    async with running(engine.client):
        slot, owner = slot_of(engine)
        engine.link.end()
        await until(lambda: not engine.client.ready)
        slot.wait(20.0)
        await asyncio.sleep(0)
        assert owner.told == []
        engine.link.say(LoadFailed("The disk is gone.", "Look for it."))
        await until(lambda: owner.told == [None], "the end of the waiting")


async def test_one_that_stops_waiting_gives_a_slot_back_that_was_on_its_way() -> None:
    engine = Scripted()
    async with running(engine.client):
        slot, owner = slot_of(engine)
        slot.wait(20.0)
        await until(lambda: asked(engine))
        await slot.stop_waiting()
        engine.link.say(Opened(asked(engine)[0].stream, 0, 3))
        assert engine.link.sent[-1] == Close(0, 3)
        assert (owner.told, engine.client.slots_used, engine.client.slots_asked_for) == ([], 0, 0)
        await slot.stop_waiting()


def test_which_losses_can_be_made_good() -> None:
    """Of an engine that died, but not of one that dies again and again under this conversation."""
    now = [0.0]
    slot, _ = slot_of(Scripted(), lambda: now[0])
    assert not slot.replaceable(ResumedElsewhere())
    found = []
    for now[0] in (100.0, 140.0, 170.0, 220.0, 250.0, 279.0):
        found.append(slot.replaceable(EngineFailed()))
    assert found == [True, True, True, True, True, False]
