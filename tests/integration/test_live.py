"""OpenAI Live over real sockets: what its clients rely on, and what strangers send."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from lab.sound.tones import pitch_hz
from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.endpoints import openai_live as endpoint
from rtc_server.endpoints import socket_transport
from rtc_server.endpoints.socket_transport import SocketTransport
from rtc_server.engine.local import LocalLink
from rtc_server.protocols.openai.events import MAX_EVENT_BYTES
from rtc_server.protocols.openai.formats import LIVE_FORMATS, AudioFormat
from rtc_server.sessions.session import MAX_BAD_MESSAGES
from tests.conftest import running_server, server_with
from tests.integration.test_moshi import Tone
from tests.support.fake_models import CountingModel, DyingModel
from tests.support.leftovers import leaves_nothing
from tests.support.live import LiveClient, live_client
from tests.support.pace import dropped_s
from tests.support.parrot import Parrot


class HissingModel(CountingModel):
    """Says what it hears, and hisses as a neural codec does while it is quiet."""

    def step(self, pcm: FloatArray, active: np.ndarray) -> Any:  # type: ignore[override]
        rows = super().step(pcm + np.float32(0.001), active)
        return rows


def at(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
async def counting() -> AsyncIterator[Server]:
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server:
        yield server


async def closed(client: LiveClient) -> int | None:
    await until(lambda: client.socket.closed, "the close")
    return client.socket.close_code


@pytest.mark.parametrize("form", LIVE_FORMATS)
async def test_a_voice_comes_back_in_each_format(server: Server, form: AudioFormat) -> None:
    """A frame at a time, or what a resampler makes of one, at the pitch that was sent."""
    async with leaves_nothing(server), live_client(at(server), Tone(440), form=form) as client:
        started = await client.wait_for("session.started")
        assert started["session"]["audio"]["format"] == form.as_dict()
        await until(lambda: client.heard.size > 3 * MODEL_RATE_HZ, "three seconds of voice")
        assert pitch_hz(client.heard[-MODEL_RATE_HZ:]) == pytest.approx(440, abs=3)
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
        assert session._microphone.muted
        await client.say("session.input_audio.unmute")
        await client.wait_for("session.input_audio.unmuted")
        assert not session._microphone.muted
        await client.say("session.update", session={"triggers": []})
        assert (await client.wait_for("session.updated"))["session"]["triggers"] == []


async def test_a_close_that_is_asked_for_comes_after_the_rest(counting: Server) -> None:
    """What was said is answered, then the end is told, and then the socket is closed: in that order."""
    async with leaves_nothing(counting), live_client(at(counting), talks=False) as client:
        await client.wait_for("session.started")
        await client.append(Tone(440)(3 * FRAME_SAMPLES))
        await client.say("session.close", event_id="c")
        assert await closed(client) == aiohttp.WSCloseCode.OK
        loud = [chunk for chunk in client.chunks if any(chunk)]
        assert len(loud) == 3
        last = client.events[-1]
        assert (last["type"], last["reason"], last["client_event_id"]) == ("session.closed", "close_requested", "c")
        assert last["usage"] == {"seconds": 0}


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


# Before the start.


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


# Bad input.


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"type":"session.input_audio.append","audio":"' + base64.b64encode(b"odd").decode() + '"}', "invalid_value"),
        ('{"type":"session.input_audio.append","audio":"%%%%"}', "invalid_value"),
        ('{"type":"session.input_audio.append"}', "missing_required_parameter"),
        ('{"type":"session.start","session":{"model":"echo"}}', "session_already_started"),
        ('{"type":"response.create"}', "unsupported_event"),
        ('{"type":"session.commentary.append","content":"x","delegation_id":null}', "unsupported"),
        ('{"type":"nonsense"}', "unknown_event"),
        ("nonsense", "invalid_json"),
        (b"\0", "invalid_json"),
        ('{"type":"session.update","session":' + '{"x":' * 5000, "invalid_json"),
        ('{"type":"session.update","session":{"triggers":[' + "[" * 50 + "]" * 50 + "]}}", "invalid_value"),
        ('{"type":"session.input_audio.append","audio":"' + "A" * MAX_EVENT_BYTES + '"}', "too_large"),
    ],
)
async def test_an_event_that_is_refused_costs_an_answer(server: Server, message: str | bytes, code: str) -> None:
    async with leaves_nothing(server), live_client(at(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        await (client.socket.send_bytes(message) if isinstance(message, bytes) else client.socket.send_str(message))
        await client.wait_for("error")
        assert client.codes() == [code]
        heard = client.heard.size
        await until(lambda: client.heard.size > heard + 5 * FRAME_SAMPLES, "a voice that goes on")


async def test_fifteen_mebibytes_at_once_end_it_and_hold_up_no_other(server: Server) -> None:
    """One that still sends when the server has closed may see the connection break instead of the code."""
    async with leaves_nothing(server), live_client(at(server), Tone(440)) as other:
        async with live_client(at(server), talks=False) as client:
            await client.wait_for("session.started")
            audio = "A" * (15 * 1024 * 1024)
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await client.socket.send_str(json.dumps({"type": "session.input_audio.append", "audio": audio}))
            assert await closed(client) in (aiohttp.WSCloseCode.MESSAGE_TOO_BIG, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
        await until(lambda: len(server.registry) == 1, "the session to end")
        heard = other.heard.size
        await until(lambda: other.heard.size > heard + 5 * FRAME_SAMPLES, "the voice of another")


async def test_too_many_bad_events_end_it(server: Server) -> None:
    async with leaves_nothing(server), live_client(at(server), talks=False) as client:
        await client.wait_for("session.started")
        for _ in range(MAX_BAD_MESSAGES):
            await client.say("nonsense")
        assert await closed(client) == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.events[-1]["type"] == "session.closed"
        assert set(client.codes()) == {"unknown_event", "rate_limit_exceeded"}


async def test_a_minute_of_audio_at_once_does_not_run_ahead(server: Server) -> None:
    """The newest of it is heard, what is too much is dropped and counted, and who speaks then is heard at once."""
    async with leaves_nothing(server), live_client(at(server), talks=False) as client:
        await client.wait_for("session.started")
        noise = Tone(440)(60 * MODEL_RATE_HZ)
        for start in range(0, noise.size, 2400):
            await client.append(noise[start : start + 2400])
        (session,) = server.registry
        await until(lambda: client.all("error"), "the drops to be told")
        assert client.codes() == ["rate_limit_exceeded"]
        await until(lambda: client.chunks and not any(client.chunks[-1]), "the end of what was left of it")
        loud = sum(any(chunk) for chunk in client.chunks)
        assert loud < 60, "of 750 frames"
        assert session._microphone.dropped > 100
        await client.append(Tone(880)(10 * FRAME_SAMPLES))
        before = len(client.chunks)
        await until(lambda: any(any(chunk) for chunk in client.chunks[before:]), "a voice")
    assert 50 < dropped_s(server, "openai_live") < 61


async def test_a_client_that_never_reads(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_transport, "_HEARTBEAT_S", 0.5)
    async with leaves_nothing(server), live_client(at(server), talks=False) as client:
        await client.wait_for("session.started")
        client.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        await client.append(Tone(440)(FRAME_SAMPLES))
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_a_client_that_reads_no_answers_costs_a_bounded_queue(server: Server) -> None:
    """Answers of 60 kB each, asked for as fast as they may be."""
    async with leaves_nothing(server), live_client(at(server), talks=False) as client:
        await client.wait_for("session.started")
        (session,) = server.registry
        transport = session.transport
        assert isinstance(transport, SocketTransport)
        client.socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        most = 0
        triggers = ["x" * 60_000]
        while len(server.registry):
            await client.say("session.update", session={"triggers": triggers})
            most = max(most, transport._texts.bytes)
            await asyncio.sleep(0.02)
        assert most < 1_200_000


async def test_a_client_that_vanishes(server: Server) -> None:
    async with leaves_nothing(server), live_client(at(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        client.socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_a_client_that_leaves_without_a_word(server: Server) -> None:
    async with leaves_nothing(server), live_client(at(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        await client.socket.close()
        await until(lambda: len(server.registry) == 0, "the session to end")


async def test_one_that_sends_no_audio_keeps_its_place_for_a_while() -> None:
    async with (
        running_server("--model", "echo", "--connect-timeout-s", "1") as server,
        live_client(at(server), talks=False) as client,
    ):
        assert await closed(client) == aiohttp.WSCloseCode.POLICY_VIOLATION
        assert client.events[-1]["reason"] == "connection_lost"


# The server's state, and who comes in.


async def test_a_full_server_says_so() -> None:
    async with running_server("--model", "echo", "--echo-slots", "1") as server, live_client(at(server)) as first:
        await first.wait_for("session.started")
        async with live_client(at(server)) as second:
            assert await closed(second) == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            assert second.codes() == ["server_full"]


async def test_a_model_that_is_not_loaded_says_so() -> None:
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server:
        await server.engines["dialogue"].close()
        async with live_client(at(server)) as client:
            assert await closed(client) == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            assert client.codes() == ["engine_unavailable"]


async def test_a_model_that_dies_ends_it_with_a_reason() -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: DyingModel(1))}) as server,
        live_client(at(server), Tone(440)) as client,
    ):
        assert await closed(client) == aiohttp.WSCloseCode.INTERNAL_ERROR
        assert client.codes() == ["engine_failed"]
        assert client.events[-1]["reason"] == "connection_lost"


async def test_a_server_that_stops_says_goodbye() -> None:
    async with running_server("--model", "echo") as server, live_client(at(server), Tone(440)) as client:
        await until(lambda: client.heard.size > 0, "a voice")
        stopping = asyncio.create_task(server.stop(0.0))
        assert await closed(client) == aiohttp.WSCloseCode.GOING_AWAY
        assert client.codes() == ["draining"]
        assert client.events[-1]["type"] == "session.closed"
        await stopping


async def test_keys(tmp_path: Path) -> None:
    """By the header, and as browsers send them, of which none comes back; none, or a foreign one, is refused."""
    key, path = credentials.new_key(), tmp_path / "auth.toml"
    path.write_text(f'[[keys]]\nname = "page"\nhash = "{credentials.hash_of(key)}"\n')
    async with running_server("--model", "echo", "--auth", str(path)) as server:
        for headers in ({}, {"Authorization": "Bearer sk-foreign"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with live_client(at(server), headers=headers):
                    pass
            assert refused.value.status == 401
        async with live_client(at(server), headers={"Authorization": f"Bearer {key}"}) as client:
            await client.wait_for("session.started")
        offered = ("realtime", f"openai-insecure-api-key.{key}")
        async with live_client(at(server), protocols=offered) as client:
            await client.wait_for("session.started")
            assert client.socket.protocol == "realtime"


async def test_without_auth_any_key_is_taken(server: Server) -> None:
    async with live_client(at(server), headers={"Authorization": "Bearer sk-whatever"}) as client:
        await client.wait_for("session.started")


# The user's own words.


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
