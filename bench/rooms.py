"""``python -m bench rooms``: how long after a sentence its translation is heard, and what a room costs."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np

from bench.scraped import samples_of
from bench.systems import OURS, SYSTEMS
from bench.table import publish
from lab.pico.portuguese import PAIRS
from lab.servers import RunningServer, running
from lab.sound.mouth import Mouth
from lab.speech.espeak import speak
from lab.speech.spoken import Voice
from lab.waiting import until, until_told
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, Resampler, level_dbfs
from rtc_server.client import MICROPHONE_HZ, VoiceClient, create_room, list_rooms

HELP = "from the end of a sentence to its translation, by stage; CPU, memory and translations of a room"

_LISTENS_IN: Final = ("pt", "en", "es")
"""The languages of the members behind the first, who speaks English."""
_LANGUAGES: Final = {"en": "English", "pt": "Portuguese"}
_VOICES: Final = {"en": "en-us", "pt": "pt-br"}
_AUDIBLE_DBFS: Final = -45.0
_LATEST_S: Final = 15.0
_PAUSE_S: Final = 1.5
_STARTS_S: Final = 90.0
_STAGES: Final = ("the pause is heard", "the words are there", "translated and spoken", "its turn", "at the listener")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sentences", type=int, default=16, help="said for the delay; 0 for none")
    parser.add_argument(
        "--from", dest="source", choices=[*_LANGUAGES], default="en", help="in which language they are said"
    )
    parser.add_argument("--members", default="2,10,50", help="of a room, by commas; empty for none")
    parser.add_argument("--seconds", type=float, default=15, help="of each room")


class _Speaker(Mouth):
    """Knows when it has said what it was given: with the packet that has the last of it."""

    def __init__(self, language: str = "en") -> None:
        super().__init__()
        self._voice = Voice(_VOICES[language])
        self.ended_at = 0.0

    def __call__(self, samples: int) -> FloatArray:
        spoke = self.speaks
        pcm = super().__call__(samples)
        if spoke and not self.speaks:
            self.ended_at = time.monotonic()
        return pcm

    def say(self, text: str) -> None:
        pcm = speak(text, self._voice).pcm
        self.utter(Resampler(MODEL_RATE_HZ, MICROPHONE_HZ).process(pcm))


class _Listener:
    """When which event came, and when there was something to be heard."""

    def __init__(self) -> None:
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.loud: list[float] = []

    def on_event(self, event: dict[str, Any]) -> None:
        self.events.append((time.monotonic(), event))

    def on_voice(self, pcm: FloatArray) -> None:
        if level_dbfs(pcm) > _AUDIBLE_DBFS:
            self.loud.append(time.monotonic())

    def first(self, after: float, **fields: Any) -> tuple[float, dict[str, Any]] | None:
        """The event with these fields, not before ``after``."""
        return next((each for each in self.events if each[0] >= after and fields.items() <= each[1].items()), None)

    def stages(self, ended_at: float) -> list[float] | None:
        """When each stage of what had been said by then was over; None while that is not known."""
        quiet, pending = (
            self.first(ended_at, type="speaking", on=False),
            self.first(ended_at, type="message", state="pending"),
        )
        if quiet is None or pending is None:
            return None
        said = pending[1]["id"]
        ready = self.first(pending[0], type="message", id=said, state="ready")
        begins = self.first(pending[0], type="playing", message=said, state="started")
        if ready is None or begins is None:
            return None
        heard = next((at for at in self.loud if at >= begins[0]), None)
        return None if heard is None else [quiet[0], pending[0], ready[0], begins[0], heard]

    @property
    def ends(self) -> int:
        """Of translations that were heard."""
        return sum(event.get("type") == "playing" and event["state"] == "ended" for _, event in self.events)


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of a room of so many ``members``. ``media``, ``all``: shares of a core, of the media process and of its models
    with it."""

    members: int
    media: float
    all: float
    memory_bytes: float
    messages: int
    translations: float


def run(arguments: argparse.Namespace) -> None:
    if arguments.sentences:
        lasted = asyncio.run(_delay(arguments.sentences, arguments.source))
        _publish_delay(lasted, arguments.sentences, arguments.source)
    sizes = [int(size) for size in arguments.members.split(",") if size]
    if sizes:
        _publish_cost([asyncio.run(_cost(size, arguments.seconds)) for size in sizes], arguments.seconds)


async def _delay(sentences: int, source: str) -> list[list[float]]:
    """Of each sentence that was heard, how long each stage took. ``source``: the language in which it was said."""
    sides = list(zip(*PAIRS, strict=True))
    texts, target = sides[list(_LANGUAGES).index(source)], _other(source)
    async with _serving() as server, contextlib.AsyncExitStack() as stack:
        room = (await create_room(server.url)).id
        speaker, listener = _Speaker(source), _Listener()
        ann = await _member(stack, server.url, room, source, speaker)
        ana = await _member(stack, server.url, room, target, None, listener)
        ana.send({"type": "room-settings", "original": "off"})
        await ann.wait_for("captions", _STARTS_S, state="on")
        lasted: list[list[float]] = []
        for number in range(sentences):
            text = texts[number % len(texts)]
            heard = listener.ends
            speaker.say(text)
            await _until(lambda: not speaker.speaks)
            await _until(lambda: listener.stages(speaker.ended_at) is not None)
            await _until(lambda heard=heard: listener.ends > heard)  # type: ignore[misc]
            times = listener.stages(speaker.ended_at)
            print(f"{number + 1}/{sentences}: {text}{'' if times else ': not heard'}", file=sys.stderr)
            if times is not None:
                lasted.append(list(np.diff([speaker.ended_at, *times])))
            await asyncio.sleep(_PAUSE_S)
        return lasted


async def _cost(members: int, seconds: float) -> _Cost:
    print(f"a room of {members}", file=sys.stderr)
    async with _serving() as server, contextlib.AsyncExitStack() as stack:
        room = (await create_room(server.url)).id
        speaker, listener = _Speaker(), _Listener()
        ann = await _member(stack, server.url, room, "en", speaker, listener)
        await ann.wait_for("captions", _STARTS_S, state="on")
        for number in range(members - 1):
            await _member(stack, server.url, room, _LISTENS_IN[number % len(_LISTENS_IN)], None)
        talking = asyncio.create_task(_talk(speaker), name="talk")
        try:
            await asyncio.sleep(2 * _PAUSE_S)
            began, media_s, all_s = time.monotonic(), server.cpu_s(children=False), server.cpu_s()
            await asyncio.sleep(seconds)
            lasted_s = time.monotonic() - began
            media_s, all_s = server.cpu_s(children=False) - media_s, server.cpu_s() - all_s
            memory_bytes = server.memory_bytes()
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
        await asyncio.sleep(2 * _PAUSE_S)  # what is under way
        cost = media_s / lasted_s, all_s / lasted_s, memory_bytes
        return _Cost(members, *cost, _messages(listener), await _translations(server))


async def _talk(speaker: _Speaker) -> None:
    """Sentence after sentence, with a pause behind each."""
    number = 0
    while True:
        speaker.say(PAIRS[number % len(PAIRS)][0])
        number += 1
        await _until(lambda: not speaker.speaks)
        await asyncio.sleep(_PAUSE_S)


@contextlib.asynccontextmanager
async def _serving() -> AsyncIterator[RunningServer]:
    """With all that rooms need."""
    options = ("--stt", "pico-stt", "--rooms", "on", "--allow-slow", "--max-step-ms", "100000")
    async with running(SYSTEMS[OURS], options) as server:

        async def talks() -> bool:
            lobby = await list_rooms(server.url)
            heard = {each.code for each in lobby.languages if each.hears}
            return {"en", "pt"} <= heard and ("en", "pt") in lobby.pairs

        await until_told(talks, "what rooms need", _STARTS_S, every_s=1.0)
        yield server


async def _member(
    stack: contextlib.AsyncExitStack,
    url: str,
    room: str,
    language: str,
    microphone: _Speaker | None,
    listener: _Listener | None = None,
) -> VoiceClient:
    """One that has a session, with a microphone that is open and, without a speaker, silent."""
    async with aiohttp.ClientSession() as http:
        asked = http.post(f"{url}/api/rooms/{room}/members", json={"name": language, "language": language})
        async with asked as answer:
            token = (await answer.json())["token"]
    heard = listener or _Listener()
    client = VoiceClient(
        url,
        microphone or Mouth(),
        service="translate",
        options={"member": token},
        on_voice=heard.on_voice,
        on_event=heard.on_event,
    )
    await stack.enter_async_context(client)
    await client.wait_for("room", 30)
    return client


async def _until(condition: Callable[[], object]) -> None:
    """Or until it is too late."""
    with contextlib.suppress(AssertionError):
        await until(condition, timeout_s=_LATEST_S)


def _messages(listener: _Listener) -> int:
    return len({event["id"] for _, event in listener.events if event["type"] == "message"})


async def _translations(server: RunningServer) -> float:
    async with aiohttp.ClientSession() as http:
        samples = await samples_of(http, server.url)
    done = [each for each in samples if each.name == "rtc_translations_total" and each.labels["outcome"] == "done"]
    return sum(each.value for each in done)


def _other(language: str) -> str:
    return next(each for each in _LANGUAGES if each != language)


def _publish_delay(lasted: Sequence[Sequence[float]], sentences: int, source: str) -> None:
    if not lasted:
        print("nothing was heard", file=sys.stderr)
        return
    columns = [*zip(*lasted, strict=True), [sum(each) for each in lasted]]
    rows = [
        [name, *(f"{np.percentile(column, share):.2f} s" for share in (50, 95))]
        for name, column in zip((*_STAGES, "**in all**"), columns, strict=True)
    ]
    publish(
        "From the end of a sentence to its translation",
        ["until", "p50", "p95"],
        rows,
        [
            f"{len(lasted)} of {sentences} sentences in {_LANGUAGES[source]}, by espeak-ng, to one listener in "
            f"{_LANGUAGES[_other(source)]}, with the default models; client and server on one machine. From the packet "
            "that has the last of the sentence to the first block of 80 ms of the translation that the listener's "
            "client has to play."
        ],
    )


def _publish_cost(costs: Sequence[_Cost], seconds: float) -> None:
    publish(
        "A room",
        ["members", "CPU, media process", "with its models", "memory", "translations of a message"],
        [
            [
                str(cost.members),
                f"{cost.media * 100:.0f} %",
                f"{cost.all * 100:.0f} %",
                f"{cost.memory_bytes / 2**20:.0f} MiB",
                f"{cost.translations / cost.messages:.2f}" if cost.messages else "–",
            ]
            for cost in costs
        ],
        [
            "Each member with an open microphone over WebRTC; the first says sentence after sentence in English, the "
            "others are silent, in turn of Portuguese, English and Spanish. For each size a server of its own, and "
            f"{seconds:g} s. CPU: of a core; memory: of all processes, what they share counted once."
        ],
    )
