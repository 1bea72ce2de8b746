"""A member of a room who talks: says what it is given, and keeps what it hears and is told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from lab.pico.portuguese import PAIRS
from lab.sound.mouth import Mouth
from lab.sound.tones import Ear
from lab.speech.clips import speak
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FloatArray
from rtc_server.client import VoiceClient
from rtc_server.transcription.stream import Transcriber
from rtc_server.transcription.words import Word
from tests.support.rooms import RoomClient, api_of, create, join

SAID: Final = "what is three plus four"
LOUD_DBFS: Final = -30.0
SPOKEN_PAIRS: Final = tuple(pair for pair in PAIRS if len(pair[0].split()) > 3)[:3]
"""Sentences of English and Portuguese that are each other's translation, of words that the models know."""
_TIMES: Final = 4
"""A sentence is said again that was not understood: sound is lost where a machine is busy."""
_AGAIN_S: Final = 15.0


class Talker:
    """``url``: of the server, or of a network in front of it."""

    def __init__(self, url: str, member: RoomClient) -> None:
        self.mouth, self.ear = Mouth(), Ear()
        self.client = VoiceClient(
            url, self.mouth, service="translate", options={"member": member.token}, on_voice=self.ear
        )

    def say(self, text: str, voice: str = "en-us") -> None:
        self.mouth.utter(speak(text, voice))

    @property
    def told(self) -> list[dict[str, Any]]:
        return list(self.client.events)

    def count(self, **fields: Any) -> int:
        """Of the events with these fields."""
        return sum(fields.items() <= event.items() for event in self.told)

    def messages(self, **fields: Any) -> list[dict[str, Any]]:
        """Those it was told with these fields, as often as it was told."""
        wanted = {"type": "message", **fields}.items()
        return [event for event in self.told if wanted <= event.items()]


async def say_until_told(
    speaker: Talker, listener: Talker, text: str = SAID, voice: str = "en-us", **fields: Any
) -> dict[str, Any]:
    """Say ``text`` until the listener is told another message with these fields: that one."""
    before = len(listener.messages(**fields))
    for attempt in range(_TIMES):
        speaker.say(text, voice)
        try:
            await until(lambda: len(listener.messages(**fields)) > before, f"a message with {fields}", _AGAIN_S)
            break
        except AssertionError:
            if attempt == _TIMES - 1:
                raise
    return listener.messages(**fields)[before]


@contextlib.asynccontextmanager
async def ann_and_ana(server: Server, way_to_ana: str = "") -> AsyncIterator[tuple[Talker, Talker]]:
    """Two members with sessions, one of English and one of Portuguese, when both are heard. ``way_to_ana``: the network
    of the second."""
    url = f"http://127.0.0.1:{server.port}"
    async with api_of(server) as http:
        room = await create(http)
        ann = Talker(url, await join(http, room, "Ann", "en"))
        ana = Talker(way_to_ana or url, await join(http, room, "Ana", "pt"))
        async with ann.client, ana.client:
            for each in (ann, ana):
                await each.client.wait_for("room", 30)
                await each.client.wait_for("captions", 30, state="on")
            yield ann, ana


async def understood(server: Server, language: str, pcm: FloatArray) -> list[str]:
    """The words in it, as the server's own model for that language writes them."""
    assert server.rooms is not None
    recogniser = server.rooms.lobby.recogniser(language)
    assert recogniser is not None
    heard: list[str] = []

    def note(what: object) -> None:
        if isinstance(what, Word):
            heard.append(what.text)

    async with Transcriber(recogniser, note, server.settings.pause_threshold) as transcriber:
        await transcriber.feed(pcm)
        await transcriber.finish()
    return words(" ".join(heard))


def words(text: str) -> list[str]:
    """Of a text, without what is no letter."""
    return "".join(char for char in text.casefold() if char.isalpha() or char == " ").split()
