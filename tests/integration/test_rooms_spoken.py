"""What is said in a room, end to end: spoken over WebRTC, written down, translated, spoken and heard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
import pytest_asyncio

from lab.pico.portuguese import PAIRS
from lab.speech.clips import SPEECH_HZ, speak
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FloatArray, level_dbfs, silence
from rtc_server.client import VoiceClient
from rtc_server.client.microphone import MICROPHONE_HZ, Microphone, silent_microphone
from tests.conftest import ON_ONE_LOOP
from tests.support.room_talk import (
    LOUD_DBFS,
    SAID,
    SPOKEN_PAIRS,
    Talker,
    ann_and_ana,
    say_until_told,
    understood,
    words,
)
from tests.support.rooms import RoomClient, api_of, create, join, talking_rooms

pytestmark = [pytest.mark.alone, ON_ONE_LOOP, pytest.mark.timeout(300)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """Four models take a while to load; each test has a room of its own."""
    async with talking_rooms() as running:
        yield running


class Listener:
    """A member's session, and the levels of what it hears."""

    def __init__(self, server: Server, member: RoomClient, microphone: Microphone = silent_microphone) -> None:
        self.levels: list[float] = []
        self.client = VoiceClient(
            f"http://127.0.0.1:{server.port}",
            microphone,
            service="translate",
            options={"member": member.token},
            on_voice=lambda pcm: self.levels.append(level_dbfs(pcm)),
        )


def spoken(text: str, voice: str = "en-us", silence_s: float = 1.0) -> Microphone:
    """A microphone into which a text is spoken once, after a silence."""
    quiet = np.zeros(round(silence_s * SPEECH_HZ), dtype=np.float32)
    pcm = np.repeat(np.concatenate((quiet, speak(text, voice))), MICROPHONE_HZ // SPEECH_HZ).astype(np.float32)
    at = 0

    def give(samples: int) -> FloatArray:
        nonlocal at
        part = pcm[at : at + samples]
        at += samples
        return np.concatenate((part, silence(samples - part.size)))

    return give


def translations_done(server: Server) -> float:
    return server.metrics.registry.get_sample_value("rtc_translations_total", {"outcome": "done"}) or 0.0


async def test_spoken_words_are_translated_once_and_heard_in_the_listeners_language(server: Server) -> None:
    """Ann speaks English; Ana and Rui hear it in Portuguese over a faint original, Bob hears Ann herself."""
    before = translations_done(server)
    async with api_of(server) as http, contextlib.AsyncExitStack() as calls:
        room = await create(http)
        ann, ana = await join(http, room, "Ann", "en"), await join(http, room, "Ana", "pt")
        rui, bob = await join(http, room, "Rui", "pt"), await join(http, room, "Bob", "en")
        others = [Listener(server, each) for each in (ana, rui, bob)]
        for each in others:
            await calls.enter_async_context(each.client)
            await each.client.wait_for("room")
        speaker = Listener(server, ann, spoken(SAID))
        await calls.enter_async_context(speaker.client)
        for each in others[:2]:
            read = await each.client.wait_for("message", 60, state="ready")
            assert read["original"].split()[0] == "what"
            assert "três" in read["text"]
            assert read["user"] == ann.member
            await each.client.wait_for("playing", 30, state="ended", message=read["id"])
            assert max(each.levels) > LOUD_DBFS
        own = await others[2].client.wait_for("message", 30, state="ready")
        assert own["text"] == own["original"]
        assert max(others[2].levels) > LOUD_DBFS
        assert not [event for event in others[2].client.events if event["type"] == "playing"]
        assert max(speaker.levels) < -60, "those who speak do not hear themselves"
        said = len({event["id"] for event in speaker.client.events if event["type"] == "message"})
        assert translations_done(server) - before == said, "once for each language, however many listen"


async def test_portuguese_is_understood_as_well(server: Server) -> None:
    """By the model's sibling, which knows a few hundred words: one of three sentences to the letter."""
    async with api_of(server) as http, contextlib.AsyncExitStack() as calls:
        room = await create(http)
        ann = Listener(server, await join(http, room, "Ann", "en"))
        await calls.enter_async_context(ann.client)
        await ann.client.wait_for("room")
        for number, (english, portuguese) in enumerate(PAIRS[:3]):
            ana = await join(http, room, f"Ana {number}", "pt")
            async with Listener(server, ana, spoken(portuguese, "pt-br")).client:
                read = await ann.client.wait_for("message", 60, state="ready", user=ana.member)
            if read["original"] == portuguese:
                assert words(read["text"]) == words(english)
                return
        raise AssertionError("none of them was understood")


async def test_the_translation_that_is_heard_says_what_is_read(server: Server) -> None:
    """Both ways, by the ear of the model of the listener's language: one of three sentences to the letter."""
    async with ann_and_ana(server) as (ann, ana):
        for each in (ann, ana):
            each.client.send({"type": "room-settings", "original": "off"})
        english, portuguese = zip(*SPOKEN_PAIRS, strict=True)
        assert await heard_as_read(server, ann, ana, english, "en-us", "pt")
        assert await heard_as_read(server, ana, ann, portuguese, "pt-br", "en")


async def heard_as_read(
    server: Server, speaker: Talker, listener: Talker, sentences: Sequence[str], voice: str, language: str
) -> bool:
    """Whether the listener hears the words of a translation, for one of the ``sentences``."""
    for sentence in sentences:
        begins = listener.ear.samples
        read = await say_until_told(speaker, listener, sentence, voice, state="ready")
        await listener.client.wait_for("playing", 30, message=read["id"], state="ended")
        await listener.ear.hear(0.5)  # what is on the way
        if await understood(server, language, listener.ear.since(begins)) == words(read["text"]):
            return True
    return False


async def test_noise_a_chord_and_silence_are_not_said(server: Server) -> None:
    """A microphone that hears all of them, and then its member: what they say is the first message."""
    async with ann_and_ana(server) as (ann, ana):
        noise = np.random.default_rng(1).normal(0, 0.05, 3 * MICROPHONE_HZ)
        times = np.arange(3 * MICROPHONE_HZ) / MICROPHONE_HZ
        chord = sum(np.sin(2 * np.pi * hz * times) for hz in (262, 330, 392)) / 20
        for sound in (noise, chord, np.zeros(2 * MICROPHONE_HZ)):
            ann.mouth.utter(np.asarray(sound, dtype=np.float32))
        await until(lambda: not ann.mouth.speaks, "the end of it")
        assert ana.messages() == []
        read = await say_until_told(ann, ana, state="ready")
        assert read["id"] == "1"


async def test_a_member_who_hangs_up_is_told_of_and_their_seat_is_free(server: Server) -> None:
    assert server.rooms is not None
    await until(lambda: server.rooms is not None and not server.rooms.slots_used, "the end of earlier sessions")
    async with api_of(server) as http:
        room = await create(http)
        ann, bob = await join(http, room, "Ann", "en"), await join(http, room, "Bob", "en")
        async with Listener(server, bob).client as kept:
            await kept.wait_for("room")
            async with Listener(server, ann).client as call:
                await call.wait_for("room")
            await until(
                lambda: [event["member"]["here"] for event in kept.events if event["type"] == "member"][-1:] == [False],
                "that Ann is away",
            )
            assert server.rooms.slots_used == 1
            assert await ann.say("I am still a member") == "1"
            assert await bob.leave() == 204
            assert (await kept.wait_for("disconnected"))["reason"] == "left"
        await until(lambda: server.rooms is not None and not server.rooms.slots_used, "free seats")


async def test_a_second_session_of_a_member_takes_the_place_of_the_first(server: Server) -> None:
    async with api_of(server) as http:
        room = await create(http)
        ann = await join(http, room, "Ann", "en")
        async with Listener(server, ann).client as first:
            await first.wait_for("room")
            async with Listener(server, ann).client as second:
                await second.wait_for("room")
                assert (await first.wait_for("disconnected"))["reason"] == "left"
                second.send({"type": "room-settings", "language": "pt", "original": "off"})
                changed = await second.wait_for("member", change="changed")
                assert changed["member"]["language"] == "pt"
                second.send({"type": "room-settings", "language": "tlh"})
                assert (await second.wait_for("error"))["code"] == "unknown_language"
                second.send({"type": "say", "text": "bom dia"})
                assert (await second.wait_for("message"))["text"] == "bom dia"


async def test_commands_of_rooms_mean_nothing_elsewhere(server: Server) -> None:
    async with VoiceClient(f"http://127.0.0.1:{server.port}", service="echo") as client:
        await client.wait_for("connected")
        client.send({"type": "say", "text": "hello"})
        assert (await client.wait_for("error"))["code"] == "bad_message"
