"""Clients of Seamless Chat in our rooms: what they know works as it does there, and what goes wrong there does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from lab.inputs.files import encode
from lab.serving import started
from lab.waiting import until_told
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.config import Settings, parse
from rtc_server.errors import ConfigError
from tests.support.rooms import api_of, join, rooms_translated_by, until_event
from tests.support.seamless import FIELDS, SeamlessChat
from tests.support.translators import count, fake

pytestmark = pytest.mark.asyncio(loop_scope="module")
ENDS = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
TONE = encode((0.3 * np.sin(np.arange(MODEL_RATE_HZ) / 10)).astype(np.float32))
"""A recording of a second."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """Its translator turns texts round, and hears German."""
    settings = Settings(port=0, model="echo", rooms="on", seamless_door=True, offers_per_minute=6000, max_lag_ms=10_000)
    async with rooms_translated_by(lambda: fake(batch=1, at_once=4, factory="Vocal"), settings) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: Server) -> AsyncIterator[SeamlessChat]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as http:
        yield SeamlessChat(http)


async def test_create_join_chat_and_the_own_message_back(client: SeamlessChat) -> None:
    room, user = await client.create_room(), await client.create_user("Ann", "eng")
    assert room in await client.rooms()
    async with client.chat(user, room, "eng") as chat:
        await chat.say("hello")
        message = await chat.hear()
    assert set(message) == FIELDS
    assert (message["userId"], message["userName"], message["lang"], message["text"]) == (user, "Ann", "eng", "hello")
    assert isinstance(message["audio"], list)
    assert all(isinstance(sample, float) and abs(sample) <= 1 for sample in message["audio"])


async def test_rooms_and_their_members_are_listed(client: SeamlessChat) -> None:
    room = await client.create_room()
    assert await client.room_info("none") == (404, {"detail": "Room not found"})
    async with client.joined(room, "Ann", "eng"), client.joined(room, "Ana", "por"):
        status, info = await client.room_info(room)
        assert (status, set(info)) == (200, {"name", "members"})
        assert sorted((each["name"], each["lang"]) for each in info["members"].values()) == [
            ("Ana", "por"),
            ("Ann", "eng"),
        ]
        listed = (await client.rooms())[room]
        assert listed == {"name": info["name"], "members": list(info["members"])}


async def test_others_read_and_hear_it_in_their_language(client: SeamlessChat) -> None:
    room = await client.create_room()
    async with client.joined(room, "Ann", "eng") as ann, client.joined(room, "Ana", "por") as ana:
        await ann.say("hello")
        message = await ana.hear()
        assert (message["userName"], message["lang"], message["text"]) == ("Ann", "eng", "olleh")
        assert message["audio"]


async def test_a_recording_is_understood(client: SeamlessChat) -> None:
    room = await client.create_room()
    async with client.joined(room, "Eva", "deu") as eva, client.joined(room, "Ana", "por") as ana:
        await eva.play(TONE)
        said, heard = await asyncio.gather(eva.hear(), ana.hear())  # aiohttp answers pings while it receives
        assert said["userName"] == heard["userName"] == "Eva"
        assert heard["text"].startswith("24000 "), "a second, as the translator got it"
        assert said["lang"] == "deu"


async def test_they_are_members_like_all_others(server: Server, client: SeamlessChat) -> None:
    """One of Seamless Chat's clients and one of ours in a room."""
    room = await client.create_room()
    async with api_of(server) as http, client.joined(room, "Ana", "por") as ana:
        ben = await join(http, room, "Ben", "en")
        async with ben.events() as events:
            state = await until_event(events, "room")
            assert [(each["name"], each["here"]) for each in state["members"]] == [("Ana", True), ("Ben", True)]
            await ben.say("hello")
            assert (await ana.hear())["text"] == "olleh"
            await ana.say("oi")
            assert (await until_event(events, "message", name="Ana", state="ready"))["text"] == "io"


# The faults of the original


async def test_many_members_cost_one_translation_for_each_language(server: Server, client: SeamlessChat) -> None:
    """And one voice; nothing is translated into its own language."""
    room = await client.create_room()
    async with contextlib.AsyncExitStack() as sockets:
        chats = [
            await sockets.enter_async_context(client.joined(room, f"{lang} {number}", lang))
            for lang in ("eng", "por", "deu")
            for number in range(3)
        ]
        assert server.rooms is not None
        assert server.rooms.lobby.interpreter.translator is not None
        metrics = server.rooms.lobby.interpreter.translator._metrics
        before = count(metrics, "rtc_translations_total", outcome="done")
        await chats[0].say("hello there")
        texts = [(await chat.hear())["text"] for chat in chats]
        assert texts == ["hello there"] * 3 + ["ereht olleh"] * 6
        done = count(metrics, "rtc_translations_total", outcome="done") - before
        assert done == 2 + 2, "into two languages, and in the voices of two"


async def test_two_who_join_at_once_are_both_members(client: SeamlessChat) -> None:
    room = await client.create_room()
    users = await asyncio.gather(*(client.create_user(f"Ben {number}", "eng") for number in range(8)))
    async with contextlib.AsyncExitStack() as sockets:
        chats = await asyncio.gather(*(sockets.enter_async_context(client.chat(user, room, "eng")) for user in users))
        # Before they speak: between what one says and how another joins, by another connection, there is no order.
        await until_told(lambda: members_are(client, room, 8), "all of them in the room")
        await asyncio.gather(*(chat.say("hello") for chat in chats))
        names = {(await chats[0].hear())["userName"] for _ in users}
        assert len(names) == len((await client.room_info(room))[1]["members"]) == 8


async def members_are(client: SeamlessChat, room: str, count: int) -> bool:
    return len((await client.room_info(room))[1]["members"]) == count


async def test_none_can_speak_as_another(client: SeamlessChat) -> None:
    """The id with which one speaks is told to no other: neither in lists nor in messages."""
    room = await client.create_room()
    ann = await client.create_user("Ann", "eng")
    async with client.chat(ann, room, "eng") as chat, client.joined(room, "Ben", "eng") as ben:
        await chat.say("hello")
        assert (await chat.hear())["userId"] == ann
        shown = {(await ben.hear())["userId"], *(await client.room_info(room))[1]["members"]}
        shown |= set((await client.rooms())[room]["members"])
        assert ann not in shown
        for user in (*shown, "", "x" * 300):
            async with client.chat(user, room, "eng") as stranger:
                assert (await stranger.socket.receive(timeout=30)).type is aiohttp.WSMsgType.CLOSE
                assert stranger.socket.close_code == 1008


async def test_what_is_too_much_is_not_taken(client: SeamlessChat) -> None:
    """Of sound and text: and only the message is lost."""
    room = await client.create_room()
    long = encode(np.zeros(31 * MODEL_RATE_HZ, np.float32))
    async with client.joined(room, "Eva", "deu") as eva:
        for recording, code in ((long, "utterance_too_long"), (b"no sound", "not_audio"), (b"", "not_audio")):
            await eva.play(recording)
            assert (await eva.hear())["error"] == code
        for message in ({"message_type": "audio", "content": "x"}, {"message_type": "text", "content": "x" * 2001}, 7):
            await eva.socket.send_json(message)
            assert (await eva.hear())["error"] in ("bad_message", "message_too_large")
        await eva.say("hallo")
        assert (await eva.hear())["text"] == "hallo"
        with contextlib.suppress(ConnectionError):  # which may be what is found of the end
            await eva.socket.send_str("x" * 5_000_000)
            assert (await eva.socket.receive(timeout=30)).type in ENDS


async def test_messages_of_a_socket_that_dies_are_not_lost(server: Server, client: SeamlessChat) -> None:
    """Those on their way, and those that come until the client is back, which is the same member."""
    room = await client.create_room()
    ana = await client.create_user("Ana", "por")
    async with client.joined(room, "Ann", "eng") as ann:
        async with client.chat(ana, room, "por") as chat:
            await until_told(lambda: members_are(client, room, 2), "Ana in the room")
            await ann.say("one")
            assert (await chat.hear())["text"] == "eno"
            chat.socket._reader.set_exception(ConnectionResetError())  # type: ignore[attr-defined]
            transport = chat.socket._response.connection.transport  # type: ignore[union-attr]
            transport.pause_reading()
            await ann.say("two")
            assert [(await ann.hear())["text"] for _ in range(2)] == ["one", "two"]
            transport.abort()
        await ann.say("three")
        async with client.chat(ana, room, "por") as chat:
            texts = [(await chat.hear())["text"] for _ in range(2)]
            while texts[-1] != "eerht":
                texts.append((await chat.hear())["text"])
            assert texts[-2:] == ["owt", "eerht"]
            assert len((await client.room_info(room))[1]["members"]) == 2


async def test_one_who_says_goodbye_is_gone_and_gets_nothing_of_before(client: SeamlessChat) -> None:
    room = await client.create_room()
    ana = await client.create_user("Ana", "por")
    async with client.joined(room, "Ann", "eng") as ann:
        async with client.chat(ana, room, "por") as chat:
            await chat.say("oi")
            await chat.hear()
        assert (await ann.hear())["text"] == "io"
        await until_told(lambda: members_are(client, room, 1), "the end of her membership")
        await ann.say("hello")
        await ann.hear()
        async with client.chat(ana, room, "por") as chat:
            await chat.say("oi")
            assert (await chat.hear())["text"] == "oi"


async def test_a_translation_that_fails_closes_nothing(client: SeamlessChat) -> None:
    room = await client.create_room()
    async with client.joined(room, "Ann", "eng") as ann, client.joined(room, "Ana", "por") as ana:
        for said, read in (("refuse", "refuse"), ("raise", "raise"), ("hello", "olleh")):
            await ann.say(said)
            assert (await ana.hear())["text"] == read


async def test_a_socket_into_nothing_is_told_why(client: SeamlessChat) -> None:
    user, room = await client.create_user("Ann", "eng"), await client.create_room()
    for where, lang, reason in (("none", "eng", "unknown_room"), (room, "tlh", "unknown_language")):
        async with client.chat(user, where, lang) as chat:
            closed = await chat.socket.receive(timeout=30)
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 1008, reason)


async def test_a_member_who_sends_without_end_is_told_and_stays(client: SeamlessChat) -> None:
    room = await client.create_room()
    async with client.joined(room, "Ann", "eng") as ann:
        for number in range(12):
            await ann.say(str(number))
        codes = [(await ann.hear()).get("error") for _ in range(12)]
        assert "rate_limited" in codes
        assert codes.count(None) >= 10


async def test_forms_are_checked(server: Server) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as http:
        for form, status in (
            ({"user_name": "Ann", "lang": "eng"}, 200),
            ({"user_name": " ", "lang": "eng"}, 400),
            ({"user_name": "Ann", "lang": "tlh"}, 400),
            ({"user_name": "Ann"}, 400),
        ):
            async with http.post("/create-user", data=form) as made:
                assert made.status == status
        async with http.post("/create-user", json={"user_name": "Ann", "lang": "eng"}) as made:
            assert made.status == 415


async def test_without_the_setting_there_is_no_such_door() -> None:
    paths = (("POST", "/create-room"), ("POST", "/create-user"), ("GET", "/rooms"), ("GET", "/chat"))
    async with (
        started(Server(Settings(port=0, model="echo", rooms="on", translate="none"))) as server,
        aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as http,
    ):
        for method, path in paths:
            async with http.request(method, path) as answer:
                assert answer.status == 404


async def test_it_wants_rooms_in_one_process() -> None:
    for arguments in (["--rooms", "off"], ["--workers", "2"]):
        with pytest.raises(ConfigError):
            parse([*arguments, "--seamless-door"], {})
    with pytest.raises(ConfigError, match="--seamless-door"):
        Server(Settings(port=0, model="echo", seamless_door=True))


@pytest.mark.slow
async def test_one_slow_translation_keeps_no_other_client_waiting(client: SeamlessChat) -> None:
    """The last one here: it leaves the translator with a thread less."""
    room, other = await client.create_room(), await client.create_room()
    async with (
        client.joined(room, "Ann", "eng") as ann,
        client.joined(room, "Ana", "por") as ana,
        client.joined(other, "Ben", "eng") as ben,
    ):
        await ann.say("hang")
        await ben.say("hello")
        assert (await ben.hear())["text"] == "hello"
        assert (await ann.hear())["text"] == "hang"
        await ann.say("hello")
        assert [(await ana.hear())["text"] for _ in range(2)] == ["hang", "olleh"], (
            "in order, once the first is given up"
        )
