"""OpenAI Live by WebSocket: what comes before the session, and who gets one."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.endpoints import openai_live as endpoint
from tests.integration.test_moshi import Tone
from tests.support.leftovers import leaves_nothing
from tests.support.live import live_client
from tests.support.live_talk import at, closed


async def test_audio_before_the_start_is_refused_and_a_start_may_follow(server: Server) -> None:
    async with leaves_nothing(server), live_client(at(server), starts=False) as client:
        await client.append(Tone(440)(FRAME_SAMPLES))
        await client.say("nonsense")
        await until(lambda: len(client.events) == 2, "two errors")
        assert client.codes() == ["session_not_started", "unknown_event"]
        assert len(server.registry) == 0
        await client.say("session.start", session={"model": "gpt-live-1"})
        await client.wait_for("session.started")


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({}, "missing_required_parameter", "session.model"),
        ({"model": "no-such-model"}, "model_not_found", None),
        (
            {"model": "echo", "audio": {"format": {"type": "audio/opus", "rate": 48_000}}},
            "invalid_value",
            "session.audio.format",
        ),
    ],
)
async def test_a_start_that_fails_ends_it(
    server: Server, session: dict[str, Any], code: str, param: str | None
) -> None:
    async with leaves_nothing(server), live_client(at(server), starts=False) as client:
        await client.say("session.start", event_id="s", session=session)
        assert await closed(client) == aiohttp.WSCloseCode.POLICY_VIOLATION
        (error,) = client.all("error")
        assert (error["error"]["code"], error["error"]["param"], error["client_event_id"]) == (code, param, "s")


async def test_one_that_never_starts_is_sent_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_START_S", 0.2)
    async with leaves_nothing(server), live_client(at(server), starts=False) as client:
        assert await closed(client) == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.codes() == ["request_timeout"]


async def test_one_that_never_starts_right_is_sent_away(server: Server) -> None:
    async with leaves_nothing(server), live_client(at(server), starts=False) as client:
        for _ in range(endpoint._BAD_BEFORE_START):
            await client.say("nonsense")
        assert await closed(client) == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.codes() == ["unknown_event"] * endpoint._BAD_BEFORE_START


async def test_a_request_that_is_no_websocket(base_url: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{base_url}/v1/live/sessions") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "bad_request")
