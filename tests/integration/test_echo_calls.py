"""What calls with the echo are told and may ask, as docs/protocol.md describes it; holes that a busy machine makes in
the sound change nothing of it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import level_dbfs
from rtc_server.client import VoiceClient
from rtc_server.sessions import session
from tests.support.calls import MuteTrack, get_json, stats_of, track_client
from tests.support.leftovers import leaves_nothing
from tests.support.protocol_page import documented

SILENCE_DBFS = -60.0


def _states(client: VoiceClient) -> list[str]:
    return [event["state"] for event in client.events if event["type"] == "state"]


async def test_muted_by_settings_the_model_hears_silence(server: Server, base_url: str) -> None:
    """Muting silences an echo, unmuting brings it back, and the timeline goes on in between."""
    ear = Ear()
    async with leaves_nothing(server), VoiceClient(base_url, tone(440), on_voice=ear) as client:
        await ear.until_voice()
        client.send({"type": "settings", "muted": True})
        await ear.until_level(below=SILENCE_DBFS)
        assert level_dbfs(await ear.hear(0.5)) <= SILENCE_DBFS
        await client.wait_for("state", state="listening")
        frames = (await stats_of(base_url, client))["frames_in"]
        await until(lambda: client.events[-1].get("frames_in", 0) > frames + 5, "frames while muted")
        client.send({"type": "settings", "muted": False})
        await ear.until_voice()


async def test_muted_from_the_start_by_an_option(server: Server, base_url: str) -> None:
    ear = Ear()
    options = {"muted": True, "stats_interval_ms": 250}
    async with leaves_nothing(server), VoiceClient(base_url, tone(440), options=options, on_voice=ear) as client:
        await client.wait_for("connected")
        assert level_dbfs(await ear.hear(1.0)) <= SILENCE_DBFS
        assert (await client.wait_for("stats"))["level_in_dbfs"] == -100
        client.send({"type": "settings", "muted": False})
        await ear.until_voice()


@pytest.mark.parametrize("identifier", ["a", "x" * 64, "ü", 0, -(2**53) + 1, 2**53 - 1])
async def test_ping_is_answered_with_its_id(server: Server, base_url: str, identifier: str | int) -> None:
    async with VoiceClient(base_url) as client:
        await client.wait_for("connected")
        client.send({"type": "ping", "id": identifier})
        assert (await client.wait_for("pong"))["id"] == identifier


async def test_ping_without_an_id_is_answered_without_one(server: Server, base_url: str) -> None:
    async with VoiceClient(base_url) as client:
        await client.wait_for("connected")
        client.send({"type": "ping"})
        pong = await client.wait_for("pong")
        assert pong.get("id") is None


async def test_connected_is_the_first_message(server: Server, base_url: str) -> None:
    async with VoiceClient(base_url, tone(440)) as client:
        await client.wait_for("stats")
        first = client.events[0]
        assert isinstance(first.pop("time_ms"), int)
        assert first == {
            "type": "connected",
            "session": client.session,
            "service": "echo",
            "model": "echo",
            "speaks": True,
            "writes": False,
            "resumed": False,
        }
        assert [event["type"] for event in client.events].count("connected") == 1


async def test_state_follows_the_voice(server: Server, base_url: str) -> None:
    """The model's voice starts and stops; each change is told once, in order, with a growing clock."""
    microphone, loud = tone(440), False
    ear = Ear()
    async with VoiceClient(base_url, lambda n: microphone(n) * (1 if loud else 0), on_voice=ear) as client:
        await client.wait_for("connected")
        for loud in (True, False, True):
            await (ear.until_voice() if loud else ear.until_level(below=SILENCE_DBFS))
            state = "speaking" if loud else "listening"
            await until(lambda state=state: _states(client)[-1:] == [state], f"state {state}")
        assert _states(client) == ["speaking", "listening", "speaking"]
        times = [event["time_ms"] for event in client.events]
        assert times == sorted(times)


async def test_a_session_can_be_looked_at(server: Server, base_url: str) -> None:
    ear = Ear()
    async with VoiceClient(base_url, tone(440), on_voice=ear) as client:
        await ear.until_voice()
        await client.wait_for("state", state="speaking")
        async with aiohttp.ClientSession() as http, http.get(f"{base_url}/api/sessions/{client.session}") as response:
            body = await response.json()
            assert response.status == 200
            assert response.headers["Cache-Control"] == "no-store"
        assert set(body) == {"session", "service", "state", "age_ms", "stats"}
        assert (body["session"], body["service"], body["state"]) == (client.session, "echo", "speaking")
        assert body["age_ms"] > 0
        assert set(body["stats"]) - {"type"} == set(documented("\n`stats`:\n"))
        assert body["stats"]["frames_in"] > 0
    await until(lambda: not len(server.registry), "the session's end")
    status, body = await get_json(f"{base_url}/api/sessions/{client.session}")
    assert (status, body["error"]["code"]) == (404, "unknown_session")


async def test_deleting_a_session_ends_it(server: Server, base_url: str) -> None:
    """The client is told why, the connection closes, and the session is unknown from then on."""
    ear = Ear()
    async with leaves_nothing(server), VoiceClient(base_url, tone(440), on_voice=ear) as client:
        await ear.until_voice()
        async with aiohttp.ClientSession() as http:
            async with http.delete(f"{base_url}/api/sessions/{client.session}") as response:
                assert response.status == 204
                assert await response.read() == b""
            async with http.delete(f"{base_url}/api/sessions/{client.session}") as response:
                assert response.status == 404
                assert (await response.json())["error"]["code"] == "unknown_session"
        await client.wait_for("disconnected", reason="deleted")
        await asyncio.wait_for(client.closed.wait(), 10)
        assert client.events[-1]["type"] == "disconnected"


async def test_bye_ends_the_session(server: Server, base_url: str) -> None:
    async with leaves_nothing(server), VoiceClient(base_url, tone(440)) as client:
        await client.wait_for("connected")
        client.send({"type": "bye"})
        await client.wait_for("disconnected", reason="bye")
        await asyncio.wait_for(client.closed.wait(), 10)


async def test_metrics_tell_of_a_call(server: Server, base_url: str) -> None:
    ear = Ear()
    async with VoiceClient(base_url, tone(440), on_voice=ear) as client:
        await ear.until_voice()
        text = await _metrics(base_url)
        assert 'rtc_slots_used{service="echo"} 1.0' in text
        assert 'rtc_sessions_opened_total{service="echo"} 1.0' in text
        assert client.session is not None
        assert client.session not in text
    await until(lambda: not len(server.registry), "the session's end")
    text = await _metrics(base_url)
    assert 'rtc_sessions_ended_total{reason="bye"} 1.0' in text
    assert 'rtc_slots_used{service="echo"} 0.0' in text
    status, body = await get_json(f"{base_url}/status")
    assert (status, body["engines"]["echo"]["slots_used"]) == (200, 0)


async def _metrics(url: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as response:
        return await response.text()


async def test_a_client_that_sends_nothing_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch, server: Server, base_url: str
) -> None:
    """Then it is taken to be silent. A client that has offered to receive only is not waited for at all."""
    for patience_s, client in ((0.5, track_client(base_url, MuteTrack())), (3600.0, VoiceClient(base_url, None))):
        monkeypatch.setattr(session, "START_PATIENCE_S", patience_s)
        async with leaves_nothing(server), client:
            await until(lambda: any(e.get("frames_filled") for e in client.events), "frames of silence")  # noqa: B023
