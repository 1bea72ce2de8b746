"""What is said in a room is translated once for each language, and what one translation lacks costs that one alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import numpy as np
import pytest

from lab.waiting import until
from rtc_server.audio import FloatArray
from rtc_server.errors import EngineUnavailable, NotFound, Overloaded
from rtc_server.metrics import Metrics
from rtc_server.protocols.rooms import Playing, RoomMessage, RoomSettings
from rtc_server.rooms import interpreter as interpreting
from rtc_server.rooms.interpreter import Interpreter
from rtc_server.rooms.member import Member
from rtc_server.rooms.message import Message
from rtc_server.rooms.places import MOST, MOST_WAITING
from rtc_server.rooms.room import Room
from tests.support.seats import Client, seated
from tests.support.translators import count, fake, running


@contextlib.asynccontextmanager
async def interpreted(languages: tuple[str, ...] = ("en", "pt", "de")) -> AsyncIterator[tuple[Room, Interpreter]]:
    """A room of these languages, of which English and Portuguese have voices."""
    async with running(fake(factory="Vocal", languages=languages)) as translator:
        interpreter = Interpreter(translator, Metrics())
        room = Room("0-0-room", "Kitchen", False, 0.0)
        room.translated, room.spoken = interpreter.pairs, interpreter.speaks
        try:
            yield room, interpreter
        finally:
            await interpreter.close()


def say(room: Room, interpreter: Interpreter, member: Member, text: str) -> Message:
    message = room.say(member, text, "speech", 1000, 0.0)
    interpreter.interpret(room, message)
    return message


def last(client: Client, message: Message) -> RoomMessage:
    found: RoomMessage = [each for each in client.of(RoomMessage) if each.id == message.id][-1]
    return found


def counted(interpreter: Interpreter, outcome: str) -> float:
    """Translations of that outcome, in one place and the other; a server has one for both."""
    assert interpreter.translator is not None
    metrics = interpreter._metrics, interpreter.translator._metrics
    return sum(count(each, "rtc_translations_total", outcome=outcome) for each in metrics)


async def settled(client: Client, message: Message) -> RoomMessage:
    await until(lambda: last(client, message).state != "pending", "what becomes of it")
    return last(client, message)


def heard(room: Room, member: Member, frames: int = 5) -> FloatArray:
    return np.concatenate([room.hear(member, 1.0) for _ in range(frames)])


async def test_ten_members_of_three_languages_cost_two_translations_of_what_one_says() -> None:
    """And two who say something at once cost four."""
    async with interpreted() as (room, interpreter):
        seats = [seated(room, str(number), ("en", "pt", "de")[number % 3]) for number in range(10)]
        (ann, _), (ana, client), (_, ute) = seats[:3]
        message = say(room, interpreter, ann, "abc")
        assert (await settled(client, message)).text == (await settled(ute, message)).text == "cba"
        assert interpreter.translator is not None
        metrics = interpreter.translator._metrics
        assert count(metrics, "rtc_translations_total", outcome="done") == 2
        both = say(room, interpreter, ann, "abc"), say(room, interpreter, ana, "def")
        assert (await settled(client, both[0])).text == "cba"
        assert (await settled(seats[0][1], both[1])).text == "fed"
        await until(lambda: count(metrics, "rtc_translations_total", outcome="done") == 6, "the others")


async def test_two_who_speak_at_once_in_a_room_of_thirty_languages_are_read_in_all() -> None:
    """What has no place among the translations that are under way waits for one."""
    languages = tuple(f"l{number:02}" for number in range(30))
    async with interpreted(languages) as (room, interpreter):
        seats = [seated(room, language, language) for language in languages]
        said = {text: say(room, interpreter, seats[number][0], text) for number, text in enumerate(("abc", "def"))}
        for member, client in seats:
            for text, message in said.items():
                read = await settled(client, message)
                own = message.member == member.id
                assert (read.state, read.reason, read.text) == ("ready", None, text if own else text[::-1])


async def test_an_empty_translation_is_read_as_nothing_and_holds_up_none_behind_it() -> None:
    async with interpreted() as (room, interpreter):
        ann, _ = seated(room, "Ann", "en")
        ana, client = seated(room, "Ana", "pt")
        empty, after = say(room, interpreter, ann, "empty"), say(room, interpreter, ann, "abc")
        read = await settled(client, empty)
        assert (read.state, read.text, read.original, read.audio) == ("ready", "", "empty", None)
        assert (await settled(client, after)).text == "cba"
        assert heard(room, ana).any()
        assert {each.message for each in client.of(Playing)} == {after.id}
        with pytest.raises(NotFound):
            await interpreter.sound_of(room, empty, "pt")


async def test_a_language_without_a_voice_is_read_and_not_heard() -> None:
    async with interpreted() as (room, interpreter):
        ann, _ = seated(room, "Ann", "en")
        ute, client = seated(room, "Ute", "de")
        message = say(room, interpreter, ann, "abc")
        read = await settled(client, message)
        assert (read.state, read.text, read.audio) == ("ready", "cba", None)
        assert not heard(room, ute).any()
        assert client.of(Playing) == []
        with pytest.raises(NotFound):
            await interpreter.sound_of(room, message, "de")


async def test_a_translator_that_dies_fails_what_it_was_at_and_translates_what_comes_then() -> None:
    """In the order in which things were said: what failed holds up none."""
    async with interpreted() as (room, interpreter):
        ann, _ = seated(room, "Ann", "en")
        ana, client = seated(room, "Ana", "pt")
        translator = interpreter.translator
        assert translator is not None
        lost = say(room, interpreter, ann, "hang")
        await until(lambda: translator.waiting == 1, "that it is at work")
        assert translator.pid is not None
        os.kill(translator.pid, signal.SIGKILL)
        failed = await settled(client, lost)
        assert (failed.state, failed.reason, failed.text) == ("failed", "engine_failed", "hang")
        refused = await settled(client, say(room, interpreter, ann, "too soon"))
        assert (refused.state, refused.reason) == ("failed", "engine_unavailable")
        await translator.wait_ready()
        after = say(room, interpreter, ann, "abc")
        assert (await settled(client, after)).text == "cba"
        assert heard(room, ana).any()
        assert {each.message for each in client.of(Playing)} == {after.id}


async def test_one_who_changes_language_is_not_played_the_former_one() -> None:
    async with interpreted() as (room, interpreter):
        ann, _ = seated(room, "Ann", "en")
        ana, client = seated(room, "Ana", "pt")
        message = say(room, interpreter, ann, "abc")
        room.change(ana, RoomSettings(language="de"), 0.0)
        await until(lambda: message.renderings["pt"].state == "ready", "the translation that was under way")
        assert not heard(room, ana).any()
        assert client.of(Playing) == []


async def test_a_room_that_says_more_than_can_be_translated_takes_no_other_rooms_place() -> None:
    """Half is the most that one has, and so much more waits for that; sounds are counted with translations."""
    async with interpreted() as (room, interpreter):
        ann, _ = seated(room, "Ann", "en")
        _, ana = seated(room, "Ana", "pt")
        most = MOST // 2 + MOST_WAITING
        messages = [say(room, interpreter, ann, f"number {number}") for number in range(most + 10)]
        states = [each.renderings["pt"].state for each in messages]
        assert states == ["pending"] * most + ["failed"] * 10
        assert last(ana, messages[-1]).reason == "overloaded"
        with pytest.raises(Overloaded):
            await interpreter.sound_of(room, messages[0], "en")
        assert counted(interpreter, "overloaded") == 10 + 1
        other = Room("0-0-other", "Hall", False, 0.0)
        other.translated, other.spoken = interpreter.pairs, interpreter.speaks
        ben, _ = seated(other, "Ben", "en")
        _, bia = seated(other, "Bia", "pt")
        message = say(other, interpreter, ben, "abc")
        assert (await settled(bia, message)).text == "cba"
        for message in messages[:most]:
            assert (await settled(ana, message)).state == "ready"
        await until(lambda: not interpreter._places.taken, "free places")


async def test_what_waits_for_too_long_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the translator has it or not."""
    monkeypatch.setattr(interpreting, "DEADLINE_S", 0.2)
    async with interpreted() as (room, interpreter):
        ann, _ = seated(room, "Ann", "en")
        _, ana = seated(room, "Ana", "pt")
        messages = [say(room, interpreter, ann, "hang") for _ in range(MOST)]
        for message in messages:
            assert (await settled(ana, message)).reason == "translation_late"
        await until(lambda: not interpreter._places.taken, "free places")
        assert counted(interpreter, "translation_late") == MOST, "each of them once"


async def test_a_sound_is_made_once_however_many_ask() -> None:
    async with interpreted() as (room, interpreter):
        ann, _ = seated(room, "Ann", "en")
        message = room.say(ann, "abc", "text", 0, 0.0)
        sounds = await asyncio.gather(*(interpreter.sound_of(room, message, "en") for _ in range(5)))
        assert all(each.size == 2400 for each in sounds)
        assert interpreter.translator is not None
        assert count(interpreter.translator._metrics, "rtc_translations_total", outcome="done") == 1
        again = await interpreter.sound_of(room, message, "en")
        np.testing.assert_allclose(again, sounds[0], atol=1e-4)
        assert count(interpreter.translator._metrics, "rtc_translations_total", outcome="done") == 1


async def test_those_who_wait_for_a_sound_when_the_server_ends_are_told() -> None:
    """And not cancelled with what they wait for, which would drop their requests without an answer."""
    async with interpreted() as (room, interpreter):
        ann, _ = seated(room, "Ann", "en")
        message = room.say(ann, "abc", "text", 0, 0.0)
        asked = asyncio.create_task(interpreter.sound_of(room, message, "en"), name="asked")
        await asyncio.sleep(0)
        await interpreter.close()
        with pytest.raises(EngineUnavailable):
            await asked
