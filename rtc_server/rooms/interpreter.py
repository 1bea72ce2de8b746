"""Has what is said in rooms translated, once for each language that is needed, and made into sound for replay.

Owns the tasks that wait for the translator, or for a place among those that may use it. A translation that fails costs
its message in that language, and no more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from rtc_server.audio import FloatArray
from rtc_server.errors import EngineUnavailable, NotFound, Overloaded, ServerError, TranslationLate
from rtc_server.metrics import Metrics
from rtc_server.rooms.message import Message, unpacked
from rtc_server.rooms.places import Place, Places
from rtc_server.rooms.room import Room
from rtc_server.system.tasks import outcome_of
from rtc_server.translation.client import Translator
from rtc_server.translation.model import TranslatorInfo, Utterance

logger = logging.getLogger(__name__)

DEADLINE_S: Final = 10.0
"""What comes later than this, after it was written down, is not heard: the talk has gone on."""
_NOTHING: Final = TranslatorInfo("", frozenset(), frozenset())


class Interpreter:
    """``translator``: None where the server has none: then rooms are for people of one language."""

    def __init__(
        self, translator: Translator | None, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.translator = translator
        self._metrics = metrics
        self._clock = clock
        self._places = Places()
        self._tasks: set[asyncio.Task[None]] = set()
        """What is translated just now, or is to be when there is a place."""
        self._speaking: dict[tuple[str, str, str], asyncio.Task[FloatArray]] = {}
        """What is made into sound just now, by room, message and language."""

    @property
    def info(self) -> TranslatorInfo:
        """Of the translator as of now; one that can do nothing while there is none."""
        info = None if self.translator is None else self.translator.info
        return _NOTHING if info is None else info

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """From which language to which there are translations, as of now."""
        return self.info.pairs

    @property
    def hears(self) -> frozenset[str]:
        """Languages whose sound the translator takes itself."""
        return self.info.hears

    @property
    def speaks(self) -> frozenset[str]:
        """Languages that have a voice."""
        return self.info.speaks

    def interpret(self, room: Room, message: Message, pcm: FloatArray | None = None) -> None:
        """Begin to translate a message into all the languages in which it is pending. ``pcm``: as it was said, where
        the translator hears for itself."""
        pending = [language for language, each in message.renderings.items() if each.state == "pending"]
        if not pending and pcm is not None:
            pending = [message.language]  # its own members want to read it
        for language in pending:
            self._begin_for_listeners(room, message, language, pcm)

    def interpret_into(self, room: Room, message: Message, language: str, pcm: FloatArray | None = None) -> None:
        """As :meth:`interpret`, into one language, if the message is pending in it."""
        rendering = message.renderings.get(language)
        if rendering is not None and rendering.state == "pending":
            self._begin_for_listeners(room, message, language, pcm)

    def begin(self, room: Room, message: Message, language: str, speak: bool, pcm: FloatArray | None = None) -> None:
        """Begin to translate a message into one language. ``speak``: it is to be heard as well. What has no place waits
        for it until it is too late; where too much waits already, it fails at once."""
        place = self._places.ask(room.id)
        if place is None:
            self._count(Overloaded.code)
            room.rendered(message, language, self._clock(), reason=Overloaded.code)
            return
        wanted = Utterance(message.language, language, message.original, pcm, message.voice, speak)
        rendered = self._render(room, message, wanted, place)
        task = asyncio.create_task(rendered, name=f"interpret-{message.id}-{language}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._rendered(place, done))

    def _begin_for_listeners(self, room: Room, message: Message, language: str, pcm: FloatArray | None) -> None:
        speak = message.kind == "speech" and any(
            member.listens and member.language == language for member in room if member.id != message.member
        )
        self.begin(room, message, language, speak, pcm)

    async def sound_of(self, room: Room, message: Message, language: str) -> FloatArray:
        """A message as sound, which is made once, however many ask. Raises NotFound where there is no voice or no text,
        Overloaded, and what :meth:`Translator.translate` does."""
        rendering = message.renderings.get(language)
        if rendering is not None and rendering.sound is not None:
            return unpacked(rendering.sound)
        key = room.id, message.id, language
        if key not in self._speaking:
            place = self._places.take(room.id)
            if place is None:
                self._count(Overloaded.code)
                raise Overloaded
            task = asyncio.create_task(self._speak(room, message, language), name=f"speak-{message.id}-{language}")
            self._speaking[key] = task
            task.add_done_callback(lambda done: self._spoken(key, place, done))
        return await outcome_of(self._speaking[key], EngineUnavailable())

    async def close(self) -> None:
        """Give up what is under way. Idempotent."""
        tasks = [*self._tasks, *self._speaking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _speak(self, room: Room, message: Message, language: str) -> FloatArray:
        text = message.text_in(language)
        if self.translator is None or language not in self.speaks or not text:
            raise NotFound
        made = await self.translator.translate(Utterance(language, language, text, voice=message.voice), DEADLINE_S)
        if made.pcm is None:
            raise NotFound
        room.keep_sound(message, language, made.pcm)
        return made.pcm

    def _spoken(self, key: tuple[str, str, str], place: Place, task: asyncio.Task[FloatArray]) -> None:
        del self._speaking[key]
        self._places.give_back(place)
        if not task.cancelled():
            task.exception()  # those who have asked are told, if they are still there

    def _rendered(self, place: Place, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._places.give_back(place)

    async def _render(self, room: Room, message: Message, wanted: Utterance, place: Place) -> None:
        assert self.translator is not None, "without one nothing is pending"
        try:
            until = asyncio.get_running_loop().time() + DEADLINE_S
            await self._free(place, until)
            made = await self.translator.translate(wanted, until - asyncio.get_running_loop().time())
        except ServerError as error:
            logger.warning("a message was not translated from %s to %s: %s", wanted.source, wanted.target, error.code)
            room.rendered(message, wanted.target, self._clock(), reason=error.code)
            return
        now = self._clock()
        room.rendered(message, wanted.target, now, made.text, made.original, made.pcm)
        if wanted.speak:
            self._metrics.room_seconds.observe(now - message.ended_at)

    async def _free(self, place: Place, until: float) -> None:
        """Wait for it. Raises TranslationLate at ``until``, a time of the event loop's."""
        try:
            async with asyncio.timeout_at(until):
                await place.free
        except TimeoutError:
            self._count(TranslationLate.code)
            raise TranslationLate from None

    def _count(self, outcome: str) -> None:
        """Of what the translator, which counts the others, was never given."""
        self._metrics.translations.labels(outcome).inc()
