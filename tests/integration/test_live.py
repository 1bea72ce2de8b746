"""OpenAI Live over real sockets: what its clients rely on, and what strangers send."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from lab.sound.tones import ends_in_tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, FloatArray
from rtc_server.engine.local import LocalLink
from rtc_server.protocols.openai import live
from rtc_server.protocols.openai.formats import LIVE_FORMATS, AudioFormat
from tests.conftest import server_with
from tests.integration.test_moshi import Tone
from tests.support.fake_models import CountingModel
from tests.support.leftovers import leaves_nothing
from tests.support.live import live_client
from tests.support.live_talk import at, closed
from tests.support.parrot import Parrot


class HissingModel(CountingModel):
    """Says what it hears, and hisses as a neural codec does while it is quiet."""

    def step(self, pcm: FloatArray, active: np.ndarray) -> Any:  # type: ignore[override]
        rows = super().step(pcm + np.float32(0.001), active)
        return rows


@pytest.fixture
async def counting() -> AsyncIterator[Server]:
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server:
        yield server


@pytest.mark.parametrize("form", LIVE_FORMATS)
async def test_a_voice_comes_back_in_each_format(server: Server, form: AudioFormat) -> None:
    """A frame at a time, or what a resampler makes of one, at the pitch that was sent."""
    async with leaves_nothing(server), live_client(at(server), Tone(440), form=form) as client:
        started = await client.wait_for("session.started")
        assert started["session"]["audio"]["format"] == form.as_dict()
        await until(lambda: ends_in_tone(client.heard, 440), "a second of the tone")
        assert max(map(len, client.chunks)) <= form.rate_hz * form.sample_bytes * 0.12


async def test_what_the_model_writes_with_its_times(counting: Server) -> None:
    """Pieces that are put one behind the other, each over the frame that it came with."""
    async with leaves_nothing(counting), live_client(at(counting)) as client:
        await until(lambda: len(client.text.split()) > 5, "words")
        assert client.text.startswith(" 1 2 3")
        pieces = client.all("session.output_transcript.delta")
        assert [piece["start_ms"] for piece in pieces] == [80 * number for number in range(len(pieces))]
        assert all(piece["end_ms"] == piece["start_ms"] + 80 for piece in pieces)


async def test_it_goes_on_while_nothing_is_said_and_is_digitally_silent_then() -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: HissingModel(1))}) as server,
        leaves_nothing(server),
        live_client(at(server), talks=False) as client,
    ):
        await client.wait_for("session.started")
        await client.append(Tone(440)(FRAME_SAMPLES * 3))
        await until(lambda: len(client.chunks) > 20, "a voice that goes on")
        assert any(client.chunks[0])
        assert not any(b"".join(client.chunks[-5:]))


async def test_mute_and_update(counting: Server) -> None:
    async with leaves_nothing(counting), live_client(at(counting), Tone(440)) as client:
        await until(lambda: client.heard.size > FRAME_SAMPLES, "a voice")
        await client.say("session.input_audio.mute", event_id="m")
        assert (await client.wait_for("session.input_audio.muted"))["client_event_id"] == "m"
        (session,) = counting.registry
        assert session.user_audio.microphone.muted
        await client.say("session.input_audio.unmute")
        await client.wait_for("session.input_audio.unmuted")
        assert not session.user_audio.microphone.muted
        await client.say("session.update", session={"triggers": []})
        assert (await client.wait_for("session.updated"))["session"]["triggers"] == []


@pytest.mark.parametrize("service", ["dialogue", "transcribe"])
async def test_how_long_a_session_has_lasted_is_told(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then and at the end; of a model without a voice as well."""
    monkeypatch.setattr(live, "_USAGE_MS", 1000)
    links = {
        "dialogue": lambda: LocalLink(lambda: CountingModel(1)),
        "transcribe": lambda: LocalLink(lambda: Parrot(1)),
    }
    async with (
        server_with(links, "--captions", "off") as server,
        leaves_nothing(server),
        live_client(at(server), Tone(440), session={"model": service}) as client,
    ):
        first = await client.wait_for("session.usage.updated")
        assert first["usage"]["seconds"] >= 1
        await client.say("session.close")
        assert await closed(client) == aiohttp.WSCloseCode.OK
        assert client.events[-1]["usage"]["seconds"] >= first["usage"]["seconds"]


async def test_a_close_that_is_asked_for_comes_after_the_rest(counting: Server) -> None:
    """What was said is answered, then the end is told, and then the socket is closed: in that order."""
    began = time.monotonic()
    async with leaves_nothing(counting), live_client(at(counting), talks=False) as client:
        await client.wait_for("session.started")
        await client.append(Tone(440)(3 * FRAME_SAMPLES))
        await client.say("session.close", event_id="c")
        assert await closed(client) == aiohttp.WSCloseCode.OK
        loud = [chunk for chunk in client.chunks if any(chunk)]
        assert len(loud) == 3
        last = client.events[-1]
        assert (last["type"], last["reason"], last["client_event_id"]) == ("session.closed", "close_requested", "c")
        assert 0 <= last["usage"]["seconds"] <= time.monotonic() - began


async def test_nothing_is_heard_after_a_close(counting: Server) -> None:
    async with leaves_nothing(counting), live_client(at(counting), talks=False) as client:
        await client.wait_for("session.started")
        await client.append(Tone(440)(FRAME_SAMPLES))
        await client.say("session.close")
        for _ in range(200):
            await client.say("nonsense")
        assert await closed(client) == aiohttp.WSCloseCode.OK
        assert client.codes() == []


async def test_the_end_by_the_clock_is_told_before(counting: Server) -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}, "--max-session-s", "2") as server,
        live_client(at(server), Tone(440)) as client,
    ):
        assert (await client.wait_for("info"))["code"] == "time_limit"
        assert await closed(client) == aiohttp.WSCloseCode.OK
        assert client.events[-1]["reason"] == "expired"


async def test_the_users_words_come_where_there_are_captions() -> None:
    links = {
        "dialogue": lambda: LocalLink(lambda: CountingModel(1)),
        "transcribe": lambda: LocalLink(lambda: Parrot(1)),
    }
    async with (
        server_with(links, "--captions", "on") as server,
        leaves_nothing(server),
        live_client(at(server), Tone(440)) as client,
    ):
        await until(lambda: len(client.all("session.input_transcript.delta")) > 2, "words")
        heard = client.all("session.input_transcript.delta")
        assert all(word["delta"].startswith(" ") and word["start_ms"] <= word["end_ms"] for word in heard)
        assert client.text.startswith(" 1 2 3")
