"""All rooms of a process: how many there are, in which languages, and that what is empty goes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from lab.waiting import until
from rtc_server.engine.client import EngineClient
from rtc_server.errors import BadMessage, RoomsPaused, ServerFull, UnknownLanguage, UnknownMember, UnknownRoom
from rtc_server.metrics import Metrics
from rtc_server.protocols.rooms import Say
from rtc_server.rooms import lobby as lobby_module
from rtc_server.rooms.homes import Homes
from rtc_server.rooms.interpreter import Interpreter
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.room import EMPTY_S


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class EnglishAndPortuguese(Interpreter):
    """What a translator of the two would make of it."""

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        return frozenset({("en", "pt"), ("pt", "en")})


def a_lobby(clock: Clock, most: int = 10) -> Lobby:
    metrics = Metrics()
    return Lobby("0-0", EnglishAndPortuguese(None, metrics), [], metrics, most, clock=clock)


async def test_rooms_that_are_empty_go_and_their_members_tokens_with_them() -> None:
    clock = Clock()
    lobby = a_lobby(clock)
    room, kept = lobby.create("Kitchen", False), lobby.create("Cellar", False)
    _, token = lobby.join(room, "Ann", "en")
    lobby.join(kept, "Ben", "en")
    member = lobby.member(token)[1]
    room.leave(member, clock.now)
    lobby.start()
    try:
        clock.now += EMPTY_S - 31
        assert lobby.room(room.id) is room
        clock.now += 32
        await until(lambda: room.id not in {each.id for each in lobby}, "the end of the room")
        with pytest.raises(UnknownRoom):
            lobby.room(room.id)
        with pytest.raises(UnknownMember):
            lobby.member(token)
    finally:
        await lobby.close()
    assert list(lobby) == []


async def test_all_rooms_together_keep_so_much_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have most forget, the oldest first; one that has less than its share keeps all."""
    monkeypatch.setattr(lobby_module, "KEPT_SOUND_BYTES", 60_000)
    lobby = a_lobby(Clock())
    quiet, *loud = [lobby.create(None, False) for _ in range(3)]
    sound = np.full(2400, 0.1, np.float32)  # 4,800 bytes
    for room, count in ((quiet, 2), (loud[0], 50), (loud[1], 100)):
        member, _ = lobby.join(room, "Ann", "en")
        for _ in range(count):
            message = room.say(member, "Hello", "text", 0, 0.0)
            room.rendered(message, "pt", 0.0, "Ola", "Hello", sound)
    lobby.start()
    try:
        await until(lambda: sum(room.sound_bytes for room in lobby) <= 60_000, "less of it")
    finally:
        kept = [[each.renderings["pt"].sound is not None for each in room.messages] for room in lobby]
        await lobby.close()
    assert kept[0] == [True] * 2
    assert [sum(each) for each in kept[1:]] == [5, 5]
    assert all(each[-5:] == [True] * 5 for each in kept[1:])


async def test_there_are_so_many_rooms() -> None:
    lobby = a_lobby(Clock(), most=2)
    rooms = [lobby.create(None, False) for _ in range(2)]
    assert len({room.id for room in rooms}) == 2
    with pytest.raises(ServerFull):
        lobby.create(None, False)


async def test_some_addresses_that_make_rooms_without_end_leave_some_for_others() -> None:
    """Rooms that are over count no more."""
    lobby = a_lobby(Clock(), most=100)

    def make_all(address: str) -> int:
        for count in range(100):
            try:
                lobby.create(None, False, address)
            except ServerFull:
                return count
        return 100

    assert [make_all(f"10.0.0.{number}") for number in range(1, 5)] == [50, 10, 8, 7]
    assert make_all("10.0.0.1") == 0
    assert all(make_all(f"10.0.1.{number}") for number in range(8)), "of 25 that were left"
    for room in lobby:
        lobby._end(room)
    assert make_all("10.0.0.1") == 50


async def test_a_language_that_is_neither_heard_nor_translated_is_refused() -> None:
    lobby = a_lobby(Clock())
    room = lobby.create(None, False)
    with pytest.raises(UnknownLanguage) as refused:
        lobby.join(room, "Ann", "tlh")
    assert refused.value.languages == ("en", "pt")
    assert len(room) == 0


class Sleeper:
    """A part of the lobby's that is started and never there."""

    ready = False

    def __init__(self) -> None:
        self.started = self.asked = 0

    def start(self) -> None:
        self.started += 1

    async def wait_settled(self) -> None:
        self.asked += 1
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def test_what_is_missing_is_waited_for_by_the_first_clients_only() -> None:
    clock, sleeper, metrics = Clock(), Sleeper(), Metrics()
    lobby = Lobby("0-0", Interpreter(None, metrics), [], metrics, 10, [cast("EngineClient", sleeper)], clock=clock)
    first = asyncio.create_task(lobby.wake())
    await until(lambda: sleeper.asked == 1, "the first client to wait")
    clock.now += 60
    await asyncio.wait_for(lobby.wake(), 5)
    assert (sleeper.started, sleeper.asked, first.done()) == (1, 1, False)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "lobby-wakes"])


class SlowHomes:
    """Of a Redis that takes its time."""

    process = "0-0"

    def __init__(self) -> None:
        self.store = SimpleNamespace(answers=True)

    async def claim(self, room_id: str) -> str | None:
        return await asyncio.Event().wait() and room_id

    async def close(self) -> None:
        pass


async def test_those_who_wait_for_a_room_when_the_server_ends_are_told() -> None:
    """And not cancelled with what they wait for, which would drop their requests without an answer."""
    metrics = Metrics()
    lobby = Lobby("0-0", Interpreter(None, metrics), [], metrics, 10, homes=cast("Homes", SlowHomes()))
    asked = [asyncio.create_task(lobby.home_of("0-1-room"), name="asked") for _ in range(2)]
    await asyncio.sleep(0)
    await lobby.close()
    for each in asked:
        with pytest.raises(RoomsPaused):
            await each


@pytest.mark.parametrize("text", [" ", "\n\t", "\x01", "\u200b\u2060", "\u202e \ufeff"])
async def test_a_message_in_which_nothing_is_to_be_seen_is_none(text: str) -> None:
    lobby = a_lobby(Clock())
    room = lobby.create(None, False)
    member, _ = lobby.join(room, "Ann", "en")
    with pytest.raises(BadMessage):
        lobby.obey(room, member, Say(text))
    assert room.messages == []
