"""OpenAI Live over WebRTC: how a session is made, what goes over its data channel, and how it is hung up."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lab.sound.tones import ends_in_tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.engine.local import LocalLink
from rtc_server.sessions.listeners import MAX_LISTENERS
from rtc_server.sessions.session import MAX_BAD_MESSAGES
from tests.conftest import server_with
from tests.support.calls import offering
from tests.support.fake_models import CountingModel
from tests.support.leftovers import leaves_nothing
from tests.support.openai_calls import SESSIONS, Caller, live_call, post
from tests.support.parrot import Parrot


@pytest.fixture
async def counting() -> AsyncIterator[Server]:
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server:
        yield server


async def test_a_voice_comes_back(server: Server) -> None:
    """By the media, not in events; the session says what it is by itself."""
    async with leaves_nothing(server), live_call(server, instructions="Be kind.") as caller:
        started = await caller.comes("session.started")
        assert started["session"]["id"] == caller.id
        assert started["session"]["id"].startswith("live_")
        assert (await caller.comes("info"))["code"] == "instructions_ignored"
        await until(lambda: ends_in_tone(caller.ear.last(1.0), 440), "a second of the tone")
        assert not caller.all("session.output_audio.delta")


async def test_what_the_model_writes(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller:
        await until(lambda: len(caller.text.split()) > 10, "words")
        assert caller.text.startswith(" 1 2 3")
        starts = [event["start_ms"] for event in caller.all("session.output_transcript.delta")]
        assert starts == sorted(starts)


async def test_the_users_words_come_where_there_are_captions() -> None:
    links = {
        "dialogue": lambda: LocalLink(lambda: CountingModel(1)),
        "transcribe": lambda: LocalLink(lambda: Parrot(1)),
    }
    async with (
        server_with(links, "--captions", "on") as server,
        leaves_nothing(server),
        live_call(server) as caller,
    ):
        await until(lambda: len(caller.all("session.input_transcript.delta")) > 2, "words")
        heard = caller.all("session.input_transcript.delta")
        assert all(word["delta"].startswith(" ") and word["start_ms"] <= word["end_ms"] for word in heard)
        assert caller.text.startswith(" 1 2 3")


async def test_events_are_obeyed_or_refused(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller:
        await caller.comes("session.started")
        caller.send("session.input_audio.mute", event_id="m")
        assert (await caller.comes("session.input_audio.muted"))["client_event_id"] == "m"
        (session,) = counting.registry
        assert session.user_audio.microphone.muted
        for number, type_ in enumerate(("session.start", "session.input_audio.append", "nonsense", "settings")):
            caller.send(type_, event_id=str(number), session={"model": "m"}, audio="AAAA")
        await until(lambda: len(caller.all("error")) == 4, "four refusals")
        assert [event["error"]["code"] for event in caller.all("error")] == [
            "session_already_started",
            "unsupported_event",
            "unknown_event",
            "unknown_event",
        ]
        assert [event["client_event_id"] for event in caller.all("error")] == list("0123")


async def test_too_many_bad_events_end_it(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller:
        await caller.comes("session.started")
        for _ in range(MAX_BAD_MESSAGES):
            caller.send("nonsense")
        assert (await caller.comes("session.closed"))["reason"] == "connection_lost"
        await until(lambda: len(counting.registry) == 0, "the end")


async def test_a_close_is_told_before_the_end(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller:
        await until(lambda: caller.text, "words")
        caller.send("session.close", event_id="c")
        closed = await caller.comes("session.closed")
        assert (closed["reason"], closed["client_event_id"]) == ("close_requested", "c")
        await until(lambda: len(counting.registry) == 0, "the end")


async def test_a_page_that_is_not_trusted(counting: Server) -> None:
    """Its application says which events may go each way; a second connection, which is trusted, has all."""
    told = [{"type": name} for name in ("session.started", "error", "session.input_audio.muted")]
    allowed = {"allowed_client_events": ["session.input_audio.mute"], "allowed_server_events": told}
    async with leaves_nothing(counting), live_call(counting, client={"data_channel": allowed}) as caller:
        await caller.comes("session.started")
        caller.send("session.close")
        assert (await caller.comes("error"))["error"]["code"] == "event_not_allowed"
        async with attached(counting, caller) as (_, events):
            await until(lambda: len(events) > 5, "words")
        caller.send("session.input_audio.mute")
        await caller.comes("session.input_audio.muted")
        assert not caller.all("session.output_transcript.delta")


async def test_hanging_up(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller:
        await caller.comes("session.started")
        assert (await post(counting, f"{SESSIONS}/{caller.id}/hangup"))[0] == 200
        assert (await caller.comes("session.closed"))["reason"] == "close_requested"
        status, _, text = await post(counting, f"{SESSIONS}/{caller.id}/hangup")
        assert (status, json.loads(text)["error"]["code"]) == (404, "unknown_session")
        status, _, text = await post(counting, f"{SESSIONS}/{caller.id.removeprefix('live_')}/hangup")
        assert (status, json.loads(text)["error"]["code"]) == (404, "unknown_session")


@contextlib.asynccontextmanager
async def attached(server: Server, caller: Caller) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, list[Any]]]:
    """A second connection, and the events that come on it."""
    url = f"http://127.0.0.1:{server.port}{SESSIONS}/{caller.id}/attach?graceful_close=true"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as socket:
        told: list[dict[str, Any]] = []

        async def listen() -> None:
            async for message in socket:
                told.append(json.loads(message.data))

        listening = asyncio.create_task(listen())
        try:
            yield socket, told
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def test_a_second_connection_reads_and_commands(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller:
        await until(lambda: caller.text, "words")
        async with attached(counting, caller) as (socket, told):
            await until(lambda: len(told) > 5, "events")
            assert told[0]["session"]["id"] == caller.id
            assert {event["type"] for event in told[1:]} == {"session.output_transcript.delta"}
            await socket.send_str(json.dumps({"type": "session.input_audio.mute", "event_id": "m"}))
            await until(lambda: any(event["type"] == "session.input_audio.muted" for event in told), "an answer")
            (session,) = counting.registry
            assert session.user_audio.microphone.muted
            assert not caller.all("session.input_audio.muted"), "its own affair"
            await socket.send_str(json.dumps({"type": "session.input_audio.append", "audio": "AAAA"}))
            await until(lambda: any(event["type"] == "error" for event in told), "a refusal")
            await socket.send_str(json.dumps({"type": "session.close"}))
            await until(lambda: socket.closed, "the close")
            assert socket.close_code == aiohttp.WSCloseCode.OK
            assert (told[-1]["type"], told[-1]["reason"]) == ("session.closed", "close_requested")
        assert (await caller.comes("session.closed"))["reason"] == "close_requested"


async def test_a_second_connection_that_leaves_costs_the_first_nothing(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller:
        await caller.comes("session.started")
        for _ in range(2 * MAX_LISTENERS):
            async with attached(counting, caller) as (_, told):
                await until(lambda told=told: told, "the start")  # type: ignore[misc]
        (session,) = counting.registry
        await until(lambda: len(session.listeners) == 0, "them to be forgotten")
        words = len(caller.text)
        await until(lambda: len(caller.text) > words, "words")


async def test_what_cannot_be_attached_to(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller:
        await caller.comes("session.started")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(MAX_LISTENERS):
                await stack.enter_async_context(attached(counting, caller))
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await stack.enter_async_context(attached(counting, caller))
            assert refused.value.status == 503
    caller.location = "live_0-0-nothing"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with attached(counting, caller):
            pass
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("session", "transport", "status", "code", "param"),
    [
        ({}, {}, 400, "missing_required_parameter", "session.model"),
        ({"model": "no-such-model"}, {}, 404, "model_not_found", None),
        ({"model": "echo"}, {"type": "sip"}, 400, "invalid_value", "transport.type"),
        ({"model": "echo"}, {"sdp": "v=0"}, 422, "no_audio", None),
        (
            {"model": "echo", "audio": {"format": {"type": "audio/pcmu"}}},
            {},
            400,
            "invalid_value",
            "session.audio.format",
        ),
    ],
)
async def test_a_call_that_cannot_be(
    server: Server, session: dict[str, Any], transport: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    async with leaves_nothing(server), offering() as offer:
        body = {"session": session, "transport": {"type": "webrtc", "sdp": offer["sdp"]} | transport}
        answered, _, text = await post(server, SESSIONS, json=body)
        error = json.loads(text)["error"]
        assert (answered, error["code"], error["param"]) == (status, code, param)


async def test_a_body_that_is_no_call(server: Server) -> None:
    status, _, text = await post(server, SESSIONS, data="nonsense", headers={"Content-Type": "application/json"})
    assert (status, json.loads(text)["error"]["code"]) == (400, "invalid_json")
    status, _, text = await post(server, SESSIONS, data="v=0", headers={"Content-Type": "application/sdp"})
    assert (status, json.loads(text)["error"]["code"]) == (415, "unsupported_media_type")
