"""Rooms over HTTP, with a real translator: made, joined, written in, read, heard again and left; and strangers."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from lab.serving import started
from rtc_server.app import Server
from rtc_server.audio import from_int16, level_dbfs
from rtc_server.config import Settings
from rtc_server.rooms.mailbox import KEPT
from rtc_server.rooms.member import VISITS_AT_ONCE
from tests.support.calls import offering
from tests.support.rooms import api_of, create, join, require_translator, until_event

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    settings = Settings(port=0, model="echo", rooms="on", offers_per_minute=6000, max_lag_ms=10_000)
    async with started(Server(settings)) as running:
        await require_translator(running)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with api_of(server) as client:
        yield client


async def error_of(answer: Any) -> tuple[int, str]:
    async with answer as response:
        return response.status, (await response.json())["error"]["code"]


async def test_what_there_is_is_listed(http: aiohttp.ClientSession) -> None:
    room = await create(http, name="Kitchen")
    hidden = await create(http, name="Cellar", private=True)
    empty = await create(http, name="Attic")
    await join(http, room, "Ann", "en")
    await join(http, room, "Ana", "pt")
    await join(http, hidden, "Ben", "en")
    async with http.get("rooms") as answer:
        listed = await answer.json()
    rooms = {each["id"]: each for each in listed["rooms"]}
    assert rooms[room] == {"id": room, "name": "Kitchen", "members": 2, "languages": ["en", "pt"]}
    assert hidden not in rooms
    assert empty not in rooms
    assert ["en", "pt"] in listed["pairs"]
    assert {"code": "pt", "name": "Portuguese", "hears": False, "speaks": True} in listed["languages"]
    assert "rough" in listed["notice"]
    async with http.get(f"rooms/{hidden}") as answer:
        shown = await answer.json()
    assert shown == {"id": hidden, "name": "Cellar", "members": [{"id": "m1", "name": "Ben", "language": "en"}]}


async def test_what_one_writes_others_read_in_their_language_and_can_hear(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    ann, ana = await join(http, room, "Ann", "en"), await join(http, room, "Ana", "pt")
    async with ana.events() as events, ann.events() as own:
        state = await until_event(events, "room")
        assert (state["you"], [each["name"] for each in state["members"]]) == (ana.member, ["Ann", "Ana"])
        await until_event(own, "room")
        message = await ann.say("Good morning, how are you?")
        pending = await until_event(events, "message", id=message)
        assert (pending["state"], pending["text"]) == ("pending", "Good morning, how are you?")
        read = await until_event(events, "message", id=message, state="ready")
        assert read["text"].casefold().startswith("bom dia")
        assert (read["original"], read["language"], read["user"]) == ("Good morning, how are you?", "en", ann.member)
        assert (await until_event(own, "message", id=message))["text"] == "Good morning, how are you?"
        status, sound = await ana.sound(read["audio"])
        assert status == 200
        with wave.open(io.BytesIO(sound)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
            pcm = from_int16(np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16))
        assert 0.5 < pcm.size / 24000 < 10
        assert level_dbfs(pcm) > -40


async def test_a_reader_goes_on_behind_the_last_event_seen(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    ann = await join(http, room, "Ann", "en")
    async with ann.events() as events:
        await until_event(events, "room")
        first = await ann.say("one")
        seen = (await until_event(events, "message", id=first))["seen"]
    second = await ann.say("two")
    async with ann.events(seen) as events:
        assert (await until_event(events, "message"))["id"] == second


async def test_a_reader_who_has_missed_more_than_is_kept_is_told_of_it_all_the_same(
    server: Server, http: aiohttp.ClientSession
) -> None:
    """As in a room in which many come, go and speak: it begins anew, with what was said last."""
    assert server.rooms is not None
    room = await create(http)
    ann, ana = await join(http, room, "Ann", "en"), await join(http, room, "Ana", "en")
    async with ana.events() as events:
        seen = (await until_event(events, "room"))["seen"]
    message = await ann.say("Good morning")
    where = server.rooms.lobby.room(room)
    speaker = where.member(ann.token)
    for _ in range(KEPT):
        where.set_speaking(speaker, True)
        where.set_speaking(speaker, False)
    async with ana.events(last=seen) as events:
        assert (await anext(events))["type"] == "room"
        read = await until_event(events, "message", id=message)
    assert read["text"] == "Good morning"
    message = await ann.say("How are you?")
    async with ana.events(last=read["seen"]) as events:
        assert (await anext(events))["id"] == message, "nothing was missed"


async def test_a_language_is_changed_and_what_is_said_comes_in_it(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    ann, ana = await join(http, room, "Ann", "en"), await join(http, room, "Ana", "pt")
    async with ana.events() as events:
        await until_event(events, "room")
        assert await ana.change(language="en") == 204
        assert (await until_event(events, "member", change="changed"))["member"]["language"] == "en"
        message = await ann.say("Good morning")
        assert (await until_event(events, "message", id=message))["state"] == "ready"


async def test_one_who_leaves_is_no_member(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    ann, ana = await join(http, room, "Ann", "en"), await join(http, room, "Ana", "pt")
    async with ann.events() as events, ana.events() as own:
        await until_event(events, "room")
        await until_event(own, "room")
        assert await ana.leave() == 204
        assert (await until_event(events, "member", change="left"))["member"]["id"] == ana.member
        async with asyncio.timeout(10):
            async for _ in own:
                pass
    assert await ana.leave() == 403


async def test_a_hundred_who_join_at_once_are_all_members(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    members = await asyncio.gather(*(join(http, room, f"Ben {number}", "en") for number in range(100)))
    assert len({each.member for each in members}) == len({each.token for each in members}) == 100
    answer = http.post(f"rooms/{room}/members", json={"name": "Ann", "language": "en"})
    assert await error_of(answer) == (503, "server_full")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("rooms/0-0-none/members", {"name": "Ann", "language": "en"}, (404, "unknown_room")),
        ("rooms/../../etc/passwd/members", {"name": "Ann", "language": "en"}, (404, "not_found")),
        ("rooms/ROOM/members", {"name": "Ann", "language": "tlh"}, (400, "unknown_language")),
        ("rooms/ROOM/members", {"name": "", "language": "en"}, (400, "bad_request")),
        ("rooms/ROOM/members", {"name": "x" * 65, "language": "en"}, (400, "bad_request")),
        ("rooms/ROOM/members", {"name": "Ann", "language": "en", "id": "m1"}, (400, "bad_request")),
        ("rooms/ROOM/messages", {"text": "hello"}, (403, "unknown_member")),
        ("rooms", {"private": "yes"}, (400, "bad_request")),
        ("rooms", [[[[[]]]]], (400, "bad_request")),
    ],
)
async def test_what_cannot_be_is_refused(
    http: aiohttp.ClientSession, path: str, body: Any, expected: tuple[int, str]
) -> None:
    room = await create(http)
    assert await error_of(http.post(path.replace("ROOM", room), json=body)) == expected


async def test_a_member_of_one_room_is_none_in_another(http: aiohttp.ClientSession) -> None:
    """Nor is an id a token."""
    room, other = await create(http), await create(http)
    ann = await join(http, room, "Ann", "en")
    for token in (ann.token, ann.member, "m1", "", f"{other}.", "é"):
        answer = http.post(f"rooms/{other}/messages", json={"text": "hello"}, headers={"Room-Token": token})
        assert await error_of(answer) == (403, "unknown_member")


@pytest.mark.parametrize("token", [b"\xff", b"\xed\xa0\x80", b"x" * 4000])
async def test_a_token_that_is_no_text_is_none(server: Server, http: aiohttp.ClientSession, token: bytes) -> None:
    """As a header may carry it."""
    room = await create(http)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    lines = (f"DELETE /api/rooms/{room}/members/me HTTP/1.1", "Host: localhost", "Connection: close", "Room-Token: ")
    writer.write("\r\n".join(lines).encode() + token + b"\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"unknown_member" in answer


async def test_one_who_comes_later_reads_what_was_said_last_in_their_language(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    ann = await join(http, room, "Ann", "en")
    message = await ann.say("Good morning")
    ana = await join(http, room, "Ana", "pt")
    async with ana.events() as events:
        assert (await until_event(events, "message", id=message))["state"] == "pending"
        assert (await until_event(events, "message", id=message, state="ready"))["text"].casefold() == "bom dia"


async def test_a_member_who_writes_without_end_is_slowed_and_no_other(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    ann, ana = await join(http, room, "Ann", "en"), await join(http, room, "Ana", "pt")
    for _ in range(10):
        await ann.say("Good morning")
    answer = http.post(f"rooms/{room}/messages", json={"text": "Good morning"}, headers={"Room-Token": ann.token})
    assert await error_of(answer) == (429, "rate_limited")
    await ana.say("Bom dia")


async def test_one_who_comes_and_goes_without_end_crowds_out_no_message(http: aiohttp.ClientSession) -> None:
    """Each time all others are told; they keep the last events of all kinds, and one who reads on misses none."""
    room = await create(http)
    ann, ana, eve = [await join(http, room, name, "en") for name in ("Ann", "Ana", "Eve")]
    async with ana.events() as events:
        seen = (await anext(events))["seen"]
    message = await ann.say("Good morning")
    statuses = []
    for _ in range(300):
        async with http.get(f"rooms/{room}/events", params={"member": eve.token}) as visit:
            statuses.append(visit.status)
    assert statuses[:VISITS_AT_ONCE] == [200] * VISITS_AT_ONCE
    assert statuses.count(429) > len(statuses) / 2
    async with ana.events(last=seen) as events:
        assert (await until_event(events, "message", id=message))["text"] == "Good morning"


async def test_a_text_that_is_too_long_or_none_is_refused(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    ann = await join(http, room, "Ann", "en")
    for text in ("", "x" * 2001, 7, None):
        answer = http.post(f"rooms/{room}/messages", json={"text": text}, headers={"Room-Token": ann.token})
        assert await error_of(answer) == (400, "bad_request")
    await ann.say("x" * 2000)


async def test_sound_of_what_is_none_is_not_found(http: aiohttp.ClientSession) -> None:
    room = await create(http)
    ann = await join(http, room, "Ann", "en")
    message = await ann.say("Good morning")
    for path in (f"{message}/audio?language=tlh", "99/audio", f"{message}/audio?language=../../en"):
        status, _ = await ann.sound(f"rooms/{room}/messages/{path}")
        assert status == 404


async def test_an_offer_without_a_members_token_opens_no_seat(server: Server, http: aiohttp.ClientSession) -> None:
    async with offering() as offer:
        for options in ({}, {"member": "0-0-none.token"}, {"member": ""}):
            answer = http.post("offer", json={**offer, "service": "translate", "options": options})
            assert await error_of(answer) == (403, "unknown_member")
    assert server.rooms is not None
    assert server.rooms.slots_used == 0
