"""Translation sessions of OpenAI's as strangers and pages have them: calls over WebRTC, client secrets, refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from lab.sound.mouth import Mouth
from lab.sound.tones import tone_dbfs
from lab.speech.clips import SPEECH_HZ, speak
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, level_dbfs
from rtc_server.client import MicrophoneTrack
from rtc_server.config import Settings
from tests.conftest import need_commands
from tests.support.calls import get_json
from tests.support.openai_calls import post, realtime_call
from tests.support.rooms import rooms_translated_by
from tests.support.translators import SUNG_HZ, fake

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/v1/realtime/translations"
TENTH = MODEL_RATE_HZ // 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """It understands German, and translates it to English and Portuguese, which it sings."""
    settings = Settings(port=0, model="echo", rooms="on", vad="on", offers_per_minute=6000, max_lag_ms=10_000)
    async with rooms_translated_by(lambda: fake(factory="Tuneful"), settings) as running:
        yield running


def wish(language: str) -> dict[str, Any]:
    return {"audio": {"output": {"language": language}}}


async def test_what_translates_is_told(server: Server) -> None:
    _, status = await get_json(f"http://127.0.0.1:{server.port}/status")
    told = status["translator"]
    assert (told["model"], told["notice"], ["en", "pt"] in told["pairs"]) == ("fake", "Fake.", True)


async def test_a_page_calls_with_a_secret_that_keeps_the_language(server: Server) -> None:
    asked = {"session": {"model": "gpt-realtime-translate", **wish("pt")}}
    status, _, text = await post(server, f"{PATH}/client_secrets", json=asked)
    secret = json.loads(text)
    assert status == 200
    assert secret["session"]["audio"]["output"]["language"] == "pt"
    headers = {"Authorization": f"Bearer {secret['value']}"}
    async with realtime_call(server, headers=headers, path=f"{PATH}/calls") as call:
        created = await call.comes("session.created")
        assert created["session"]["audio"]["output"]["language"] == "pt"
        call.send("session.update", session=wish("en"))
        assert (await call.comes("session.updated"))["session"]["audio"]["output"]["language"] == "en"
        call.send("session.close")
        async with asyncio.timeout(60):
            await call.comes("session.closed")
    assert server.rooms is not None
    lobby = server.rooms.lobby
    await until(lambda: not sum(map(len, lobby)), "an empty booth")


async def test_what_a_call_over_webrtc_says_is_read_and_heard_in_the_other_language(server: Server) -> None:
    """What was heard of it goes to the model, as sound; its words and its voice come back. It is said again and again,
    as long as nothing is understood: a busy machine loses sound."""
    need_commands("espeak-ng")
    mouth = Mouth()
    async with realtime_call(server, path=f"{PATH}/calls", track=MicrophoneTrack(mouth)) as call:
        await call.comes("session.created")
        call.send("session.update", session=wish("pt"))
        await until(lambda: "session.updated" in call.types, "the other language")
        mouth.utter(np.tile(np.pad(speak("was ist drei plus vier", "de"), (0, SPEECH_HZ)), 60))
        await until(lambda: call.text != "", "its translation", 60)
        samples, peak = call.text.split()[:2]
        assert int(samples) > 9600, "an utterance's sound"
        assert float(peak[:4]) > 0.05
        while not sung(await call.ear.hear(0.5, 60)):
            pass
        call.send("session.close")
        await until(lambda: "session.closed" in call.types, "the end of it", 60)
        assert "error" not in call.types


def sung(heard: FloatArray) -> bool:
    """Whether for a tenth of a second there was the translation's voice, and no other."""
    tenths = heard[: heard.size // TENTH * TENTH].reshape(-1, TENTH)
    return any(level_dbfs(each) > -20 and tone_dbfs(each, SUNG_HZ) > level_dbfs(each) - 1 for each in tenths)


async def test_what_cannot_be_is_refused_and_the_session_goes_on(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}{PATH}?model=gpt-realtime-translate"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as socket, asyncio.timeout(60):
        created = await socket.receive_json()
        assert created["session"]["audio"]["output"]["language"] == "en"
        for event, code in (
            ({"type": "session.update", "session": wish("tlh")}, "invalid_value"),
            ({"type": "session.update", "session": {"model": "gpt-5"}}, "immutable_parameter"),
            ({"type": "session.update", "session": {"audio": 7}}, "invalid_value"),
            ({"type": "session.input_audio_buffer.append", "audio": "!"}, "invalid_value"),
            ({"type": "response.create"}, "unknown_event"),
        ):
            await socket.send_json(event | {"event_id": "mine"})
            error = (await socket.receive_json())["error"]
            assert (error["code"], error["event_id"]) == (code, "mine")
        await socket.send_json({"type": "session.update", "session": wish("por")})
        assert (await socket.receive_json())["type"] == "session.updated"


async def test_a_model_that_does_not_translate_has_no_such_sessions(server: Server) -> None:
    for model in ("gpt-realtime", "nonsense"):
        url = f"http://127.0.0.1:{server.port}{PATH}?model={model}"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert answer.status in (400, 404)
    status, _, text = await post(server, f"{PATH}/client_secrets", json={"session": wish("tlh")})
    assert (status, json.loads(text)["error"]["code"]) == (400, "invalid_value")
