"""The service ``transcribe`` over WebRTC: words with their times, speech and turns, on the data channel and as
server-sent events, from a model that writes a word for each tone that it hears."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import numpy as np
import pytest

from lab.sound.tones import tone
from lab.stenographer import DELAY_S, Stenographer
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FloatArray
from rtc_server.client import VoiceClient
from rtc_server.engine.local import LocalLink
from tests.conftest import server_with
from tests.support.leftovers import leaves_nothing

pytestmark = pytest.mark.alone


def transcribing_server(slots: int = 4, heads: bool = True, *arguments: str) -> AbstractAsyncContextManager[Server]:
    links = {"transcribe": lambda: LocalLink(lambda: Stenographer(slots, heads))}
    return server_with(links, "--engine", "thread", "--vad", "on", *arguments)


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def bursts(hz: float, on_s: float = 0.32, off_s: float = 0.48, rate_hz: int = 48_000) -> Callable[[int], FloatArray]:
    """A microphone that speaks words of one tone."""
    state = {"at": 0}
    sine = tone(hz)

    def microphone(samples: int) -> FloatArray:
        at = (state["at"] + np.arange(samples)) / rate_hz
        state["at"] += samples
        return (sine(samples) * ((at % (on_s + off_s)) < on_s)).astype(np.float32)

    return microphone


def of_kind(client: VoiceClient, kind: str) -> list[dict[str, object]]:
    return [event for event in client.events if event["type"] == kind]


async def test_words_appear_while_one_speaks() -> None:
    async with (
        transcribing_server() as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), bursts(500)) as client,
    ):
        connected = await client.wait_for("connected")
        assert (connected["service"], connected["speaks"], connected["writes"]) == ("transcribe", False, True)
        await until(lambda: len(of_kind(client, "word")) >= 4, "words")
        words = of_kind(client, "word")
        assert {word["text"] for word in words} == {"500"}
        starts = [word["start_ms"] for word in words]
        steps = np.diff(starts)  # type: ignore[arg-type]
        assert np.median(steps) == pytest.approx(800, abs=80)
        for word in words:
            # Told about as late as the model writes, and a frame or two and the way there.
            assert word["time_ms"] - word["end_ms"] < DELAY_S * 1000 + 700  # type: ignore[operator]
            assert word["end_ms"] >= word["start_ms"]  # type: ignore[operator]
        assert of_kind(client, "speech-started")
        assert not of_kind(client, "text")


async def test_each_client_has_its_own_words() -> None:
    pitches = (300, 400, 500, 600)
    async with transcribing_server() as server, leaves_nothing(server), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(VoiceClient(url_of(server), bursts(hz))) for hz in pitches]
        await until(lambda: all(len(of_kind(client, "word")) >= 3 for client in clients), "words for all")
        for client, hz in zip(clients, pitches, strict=True):
            assert {word["text"] for word in of_kind(client, "word")} == {str(hz)}


async def test_the_last_word_comes_before_the_goodbye() -> None:
    """Said less than the model's delay before the end."""
    async with transcribing_server() as server, leaves_nothing(server):
        async with VoiceClient(url_of(server), bursts(500, on_s=60)) as client:
            await client.wait_for("connected")
            await until(lambda: of_kind(client, "speech-started"), "speech")
            assert not of_kind(client, "word")  # it goes on and on
            client.send({"type": "bye"})
            await client.wait_for("disconnected", reason="bye")
        kinds = [event["type"] for event in client.events]
        assert (
            kinds.index("word") < kinds.index("speech-ended") < kinds.index("turn-ended") < kinds.index("disconnected")
        )


async def test_a_turn_ends_when_the_model_says_so() -> None:
    microphone = bursts(500, on_s=0.4, off_s=3.0)
    async with (
        transcribing_server() as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), microphone) as client,
    ):
        await client.wait_for("turn-ended")
        kinds = [event["type"] for event in client.events if event["type"] in ("word", "turn-ended", "speech-ended")]
        assert kinds[:3] == ["word", "speech-ended", "turn-ended"]


async def test_times_begin_anew_with_a_new_conversation() -> None:
    async with (
        transcribing_server() as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), bursts(500)) as client,
    ):
        await until(lambda: len(of_kind(client, "word")) >= 3, "words")
        client.send({"type": "reset"})
        await client.wait_for("state", reason="reset")
        before = len(of_kind(client, "word"))
        await until(lambda: len(of_kind(client, "word")) > before, "a word")
        assert of_kind(client, "word")[before]["start_ms"] < 1600  # type: ignore[operator]


async def test_events_as_server_sent_events() -> None:
    """From the first one, from a later one, and to the end."""
    async with (
        transcribing_server() as server,
        leaves_nothing(server),
        aiohttp.ClientSession() as http,
        VoiceClient(url_of(server), bursts(500)) as client,
    ):
        await until(lambda: len(of_kind(client, "word")) >= 3, "words")
        url = f"{url_of(server)}/api/sessions/{client.session}/events"
        async with http.get(url, headers={"Last-Event-ID": "x"}) as response:
            assert response.status == 400
        async with http.get(url, headers={"Last-Event-ID": "2"}) as response:
            assert (await response.content.readline()).decode() == "id: 3\n"
        async with http.get(url) as response:
            assert response.content_type == "text/event-stream"
            client.send({"type": "bye"})
            text = (await response.read()).decode()
        told = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
        assert told[-1]["type"] == "disconnected"
        await until(lambda: bool(of_kind(client, "disconnected")), "the end")
        assert told == [event for event in client.events if "seq" in event]


async def test_a_model_without_heads_has_a_detector() -> None:
    """Silero's hears speech; a tone is none. What the detector does with speech is tested with its model."""
    async with (
        transcribing_server(4, False) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), bursts(500)) as client,
    ):
        await until(lambda: len(of_kind(client, "word")) >= 2, "words")
