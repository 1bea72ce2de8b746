"""OpenAI Realtime over WebRTC: how a call is made, what goes over its data channel and beside it, and how it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from lab.sound.tones import ends_in_tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.engine.local import LocalLink
from rtc_server.sessions.session import MAX_BAD_MESSAGES
from tests.conftest import NO_GRACE, server_with
from tests.support.calls import offering
from tests.support.fake_models import CountingModel, DyingModel
from tests.support.leftovers import leaves_nothing
from tests.support.openai_calls import CALLS, SDP, Caller, form, post, realtime_call
from tests.support.openai_realtime import realtime_client


@pytest.fixture
async def counting() -> AsyncIterator[Server]:
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server:
        yield server


async def test_a_voice_comes_back(server: Server) -> None:
    """By the media, not in events, which say when it is to be heard."""
    async with leaves_nothing(server), realtime_call(server) as caller:
        assert caller.id.startswith("rtc_")
        assert (await caller.comes("session.created"))["session"]["model"] == "echo"
        await caller.comes("output_audio_buffer.started")
        await until(lambda: ends_in_tone(caller.ear.last(1.0), 440), "a second of the tone")
        assert "response.output_audio.delta" not in caller.types


async def test_the_settings_may_come_with_the_offer(server: Server) -> None:
    settings = {"type": "realtime", "model": "gpt-realtime", "audio": {"output": {"voice": "marin"}}}
    async with leaves_nothing(server), realtime_call(server, settings) as caller:
        session = (await caller.comes("session.created"))["session"]
        assert (session["model"], session["audio"]["output"]["voice"]) == ("gpt-realtime", "marin")


async def test_a_cancelled_response_is_not_heard(server: Server) -> None:
    """The model goes on, and its client hears nothing of it."""
    async with leaves_nothing(server), realtime_call(server) as caller:
        await caller.comes("output_audio_buffer.started")
        caller.send("response.cancel")
        assert (await caller.comes("response.done"))["response"]["status"] == "cancelled"
        await caller.comes("output_audio_buffer.cleared")
        (session,) = server.registry
        said, heard = session._stats.frames_out, caller.ear.samples
        await until(lambda: session._stats.frames_out > said + 40, "three seconds of the model's voice")
        assert session._stats.level_out_dbfs > -20
        rest = caller.ear.since(heard + 12_000)  # what was under way
        assert rest.size == 0 or np.abs(rest).max() < 0.01


async def test_what_the_model_writes(counting: Server) -> None:
    async with leaves_nothing(counting), realtime_call(counting) as caller:
        await until(lambda: caller.types.count("response.output_audio_transcript.delta") > 5, "words")


async def test_too_many_bad_events_end_it(counting: Server) -> None:
    async with leaves_nothing(counting), realtime_call(counting) as caller:
        await caller.comes("session.created")
        caller.send("nonsense", event_id="mine")
        error = (await caller.comes("error"))["error"]
        assert (error["code"], error["event_id"]) == ("unknown_event", "mine")
        for _ in range(MAX_BAD_MESSAGES):
            caller.send("nonsense")
        await until(lambda: len(counting.registry) == 0, "the end")


async def test_an_engine_that_dies() -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: DyingModel(1, at=25))}, *NO_GRACE) as server,
        realtime_call(server) as caller,
    ):
        assert (await caller.comes("error"))["error"]["code"] == "engine_failed"
        assert (await caller.comes("response.done"))["response"]["status"] == "failed"


async def test_hanging_up(counting: Server) -> None:
    async with leaves_nothing(counting), realtime_call(counting) as caller:
        await caller.comes("session.created")
        assert (await post(counting, f"{CALLS}/{caller.id}/hangup"))[0] == 200
        await until(lambda: len(counting.registry) == 0, "the end")
        for call in (caller.id, caller.id.removeprefix("rtc_"), "rtc_x"):
            status, _, body = await post(counting, f"{CALLS}/{call}/hangup")
            assert (status, json.loads(body)["error"]["code"]) == (404, "unknown_session")


def beside(server: Server, caller: Caller) -> str:
    return f"http://127.0.0.1:{server.port}/v1/realtime?call_id={caller.id}"


async def test_a_socket_beside_a_call(server: Server) -> None:
    """It gets the call's events and may send its own; it goes with the call, and the call stays when it goes."""
    async with leaves_nothing(server), realtime_call(server) as caller:
        await caller.comes("response.created")
        async with realtime_client(beside(server, caller), None) as first:
            assert (await first.comes("session.created"))["session"] == caller.last("session.created")["session"]
            await first.send("session.update", session={"instructions": "Be kind."})
            for told in (await first.comes("session.updated"), await caller.comes("session.updated")):
                assert told["session"]["instructions"] == "Be kind."
            caller.send("response.cancel")
            assert (await first.comes("response.done"))["response"]["status"] == "cancelled"
        async with realtime_client(beside(server, caller), None) as second:
            await second.comes("session.created")
            await post(server, f"{CALLS}/{caller.id}/hangup")
            await second.listened()


async def test_beside_what_is_no_call(server: Server) -> None:
    async with aiohttp.ClientSession() as http:
        for name in ("rtc_x", "x", ""):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"http://127.0.0.1:{server.port}/v1/realtime?call_id={name}")
            assert refused.value.status == 404


async def test_a_session_of_another_door_is_no_call(server: Server) -> None:
    async with realtime_client(f"http://127.0.0.1:{server.port}/v1/realtime") as client:
        await client.comes("session.created")
        (session,) = server.registry
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"http://127.0.0.1:{server.port}/v1/realtime?call_id=rtc_{session.id.text}")
            assert refused.value.status == 404


BAD: dict[str, tuple[Any, int, str]] = {
    "no session": ({"type": "realtime", "model": "gpt-5"}, 404, "model_not_found"),
    "odd model": ({"model": 5}, 400, "invalid_value"),
    "odd format": ({"audio": {"input": {"format": {"type": "audio/x"}}}}, 400, "invalid_value"),
    "a list": ([], 400, "invalid_value"),
    "no JSON": ("{", 400, "invalid_json"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_call_whose_settings_cannot_be(server: Server, name: str) -> None:
    session, wanted, code = BAD[name]
    async with leaves_nothing(server), offering() as offer:
        status, _, body = await post(server, CALLS, **form(offer["sdp"], session))
        assert (status, json.loads(body)["error"]["code"]) == (wanted, code)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"data": "v=0", "headers": SDP}, 422, "no_audio"),
        ({"data": b"\xff", "headers": SDP}, 400, "bad_sdp"),
        ({"data": "{}", "headers": {"Content-Type": "application/json"}}, 415, "unsupported_media_type"),
        ({"data": "x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "missing_required_parameter"),
        (
            {"data": "x", "headers": {"Content-Type": 'multipart/form-data; boundary="a"'}},
            400,
            "missing_required_parameter",
        ),
        ({"data": b"x" * 70_000, "headers": SDP}, 413, "too_large"),
    ],
)
async def test_what_is_no_offer(server: Server, request_: dict[str, Any], status: int, code: str) -> None:
    async with leaves_nothing(server):
        answered, _, body = await post(server, CALLS, **request_)
        assert (answered, json.loads(body)["error"]["code"]) == (status, code)
