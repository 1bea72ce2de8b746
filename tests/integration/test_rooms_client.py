"""The client for programs as a member of a room: what it says, hears, reads and is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import pytest
import pytest_asyncio

from lab.serving import started
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, level_dbfs
from rtc_server.client import (
    MemberChange,
    Refused,
    RoomClient,
    RoomMessage,
    RoomState,
    create_room,
    list_rooms,
)
from rtc_server.config import Settings
from rtc_server.protocols.rooms import RoomEvent
from tests.support.leftovers import leaves_nothing
from tests.support.rooms import require_translator

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with started(
        Server(Settings(port=0, model="echo", rooms="on", offers_per_minute=6000, max_lag_ms=10_000))
    ) as running:
        await require_translator(running)
        yield running


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/"


async def message_in(events: AsyncGenerator[RoomEvent, None], message: str) -> RoomMessage:
    """The message once it is translated, or could not be."""
    async for event in events:
        if isinstance(event, RoomMessage) and event.id == message and event.state != "pending":
            return event
    raise AssertionError("the session ended without it")


async def test_members_write_in_their_languages_and_read_and_hear_their_own(server: Server, url: str) -> None:
    room = await create_room(url, "Kitchen")
    async with (
        leaves_nothing(server),
        RoomClient(url, room.id, "Ann", "en") as ann,
        RoomClient(url, room.id, "Ana", "pt") as ana,
    ):
        events, own = ana.events(), ann.events()
        state = await anext(events)
        assert isinstance(state, RoomState)
        assert (state.room, state.you) == (room, ana.member)
        assert [each.name for each in state.members] == ["Ann", "Ana"]
        (listed,) = [each for each in (await list_rooms(url)).rooms if each.id == room.id]
        assert (listed.members, listed.languages) == (2, ["en", "pt"])
        read = await message_in(events, await ann.say("Good morning"))
        assert (read.name, read.original, read.text.casefold()) == ("Ann", "Good morning", "bom dia")
        pcm = await ana.sound_of(read)
        assert pcm.size > 0.3 * MODEL_RATE_HZ
        assert level_dbfs(pcm) > -40
        await ana.change(language="en", name="Anne", original="off")
        assert (await message_in(events, await ann.say("Good night"))).text == "Good night"
        async for event in own:
            if isinstance(event, MemberChange) and event.member.name == "Anne":
                break


async def test_what_the_server_refuses_is_raised_with_its_code(url: str) -> None:
    room = await create_room(url, private=True)
    for where, language, code in ((room.id, "tlh", "unknown_language"), ("0-0-none", "en", "unknown_room")):
        with pytest.raises(Refused) as refused:
            async with RoomClient(url, where, "Ann", language):
                pass
        assert refused.value.code == code
    async with RoomClient(url, room.id, "Ann", "en") as ann:
        with pytest.raises(Refused) as refused:
            await ann.say("x" * 2001)
        assert (refused.value.status, refused.value.code) == (400, "bad_request")
        await ann.leave()
        with pytest.raises(Refused) as refused:
            await ann.say("hello")
        assert refused.value.code == "unknown_member"


async def test_events_end_when_the_member_leaves_or_is_elsewhere(server: Server, url: str) -> None:
    room = await create_room(url)
    async with RoomClient(url, room.id, "Ben", "en") as ben:
        async with RoomClient(url, room.id, "Ann", "en") as ann:
            events = ann.events()
            assert isinstance(await anext(events), RoomState)
            assert server.rooms is not None
            lobby = server.rooms.lobby
            (member,) = [each for each in lobby.room(room.id) if each.name == "Ann"]
            lobby.room(room.id).leave(member, lobby.clock())
            assert not [event async for event in events if isinstance(event, RoomState)]
        async for event in ben.events():
            if isinstance(event, MemberChange) and event.change == "left":
                break
    assert not list(server.rooms.lobby.room(room.id))
