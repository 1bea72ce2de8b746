"""The doors of OpenAI's protocols, by WebSocket and by WebRTC: what all four tell a client that cannot be served, and
what a conversation's end leaves."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.network.vanishing import blackhole
from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.config import parse
from rtc_server.endpoints import openai_live_talk, openai_realtime_talk
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from tests.conftest import NO_GRACE, UNLIMITED, running_server, server_with
from tests.integration.test_openai_realtime_admission import refused
from tests.support.calls import offering
from tests.support.engines import Loads
from tests.support.fake_models import CountingModel, DyingModel
from tests.support.leftovers import leaves_nothing
from tests.support.live import live_client
from tests.support.openai_calls import CALLS, SDP, SESSIONS, Caller, live_call, post, realtime_call
from tests.support.openai_realtime import realtime_client

pytestmark = pytest.mark.slow

Knock = Callable[[Server, Mapping[str, str]], Awaitable[tuple[int | None, str]]]
CallMaker = Callable[[Server], AbstractAsyncContextManager[Caller]]


async def _live_socket(server: Server, headers: Mapping[str, str]) -> tuple[int | None, str]:
    base = f"http://127.0.0.1:{server.port}"
    try:
        async with live_client(base, headers=headers, talks=False) as client:
            await until(lambda: client.socket.closed or client.all("session.started"), "an answer")
            return client.socket.close_code, "".join(client.codes())
    except aiohttp.WSServerHandshakeError:
        return await refused(base + SESSIONS, headers=headers)


async def _realtime_socket(server: Server, headers: Mapping[str, str]) -> tuple[int | None, str]:
    url = f"http://127.0.0.1:{server.port}/v1/realtime?model=gpt-realtime"
    try:
        async with realtime_client(url, None, headers=headers) as client:
            await client.comes("session.created")
            return None, ""
    except aiohttp.WSServerHandshakeError:
        return await refused(url, headers=headers)


async def _live_offer(server: Server, headers: Mapping[str, str]) -> tuple[int | None, str]:
    async with offering() as offer:
        body = {"session": {"model": "gpt-live-1"}, "transport": {"type": "webrtc", "sdp": offer["sdp"]}}
        return await _outcome(server, f"{SESSIONS}/", await post(server, SESSIONS, json=body, headers=headers), headers)


async def _realtime_offer(server: Server, headers: Mapping[str, str]) -> tuple[int | None, str]:
    async with offering() as offer:
        answer = await post(server, f"{CALLS}?model=gpt-realtime", data=offer["sdp"], headers={**SDP, **headers})
        return await _outcome(server, f"{CALLS}/", answer, headers)


async def _outcome(
    server: Server, path: str, answer: tuple[int, Mapping[str, str], str], headers: Mapping[str, str]
) -> tuple[int | None, str]:
    """What was refused; a call that was made is hung up."""
    status, answered, text = answer
    if status != 201:
        return status, json.loads(text)["error"]["code"]
    call = answered["Location"].rsplit("/", 1)[-1]
    assert (await post(server, f"{path}{call}/hangup", headers=headers))[0] == 200
    return None, ""


DOORS: dict[str, Knock] = {
    "live by WebSocket": _live_socket,
    "live by WebRTC": _live_offer,
    "realtime by WebSocket": _realtime_socket,
    "realtime by WebRTC": _realtime_offer,
}
every_door = pytest.mark.parametrize("name", DOORS)


def later(name: str) -> int:
    """How a door says "not now": the protocol of the one begins on an open socket."""
    return aiohttp.WSCloseCode.TRY_AGAIN_LATER if name == "live by WebSocket" else 503


@every_door
async def test_a_server_that_is_full(name: str) -> None:
    async with running_server("--model", "echo", "--echo-slots", "1") as server:
        async with realtime_client(f"http://127.0.0.1:{server.port}/v1/realtime") as first:
            await first.comes("session.created")
            assert await DOORS[name](server, {}) == (later(name), "server_full")
        await until(lambda: not server.engines["echo"].slots_used, "its slot")
        assert await DOORS[name](server, {}) == (None, "")


@contextlib.asynccontextmanager
async def loading(loaded: threading.Event) -> AsyncIterator[Server]:
    """A server whose model is being loaded until then."""

    def load() -> CountingModel:
        assert loaded.wait(30)
        return CountingModel(1)

    settings = parse(["--port", "0", "--model", "echo", "--vad", "off", *UNLIMITED], environment={})
    server = Server(
        settings,
        make_engines=lambda _, metrics: {"dialogue": EngineClient("dialogue", lambda: LocalLink(load), metrics)},
    )
    await server.start()
    try:
        yield server
    finally:
        loaded.set()
        await server.stop(0.0)


@every_door
async def test_a_model_that_is_loading(name: str) -> None:
    loaded = threading.Event()
    async with loading(loaded) as server:
        assert await DOORS[name](server, {}) == (later(name), "engine_unavailable")
        loaded.set()
        await server.wait_ready()
        assert await DOORS[name](server, {}) == (None, "")


@every_door
async def test_keys_and_secrets_that_open_nothing(name: str, tmp_path: Path) -> None:
    """None, a foreign one, a secret that has expired, one of another server, of a key that was taken out, and of
    another service; and one that opens."""
    keys = [credentials.new_key() for _ in range(2)]
    path = tmp_path / "auth.toml"

    def write(*numbers: int) -> None:
        entries = [f'[[keys]]\nname = "{number}"\nhash = "{credentials.hash_of(keys[number])}"\n' for number in numbers]
        path.write_text("".join(entries))

    write(0, 1)
    links = {service: lambda: LocalLink(lambda: CountingModel(1)) for service in ("dialogue", "transcribe")}
    knock = DOORS[name]
    async with server_with(links, "--auth", str(path)) as server:
        secret = await _secret(server, keys[1])
        other = await _secret(server, keys[0], session={"model": "transcribe"})
        async with leaves_nothing(server):
            assert await knock(server, {}) == (401, "invalid_api_key")
            for foreign in ("sk-foreign", "ek_foreign", f"{secret}x", secret[:-9], "\N{SNOWMAN}"):
                assert await knock(server, _bearer(foreign)) == (401, "invalid_api_key"), foreign
            forbidden = (aiohttp.WSCloseCode.POLICY_VIOLATION if name == "live by WebSocket" else 403, "forbidden")
            assert await knock(server, _bearer(other)) == forbidden
            assert await knock(server, _bearer(secret)) == (None, "")
            server.access.today = lambda: time.time() + 601
            assert await knock(server, _bearer(secret)) == (401, "invalid_api_key")
            server.access.today = time.time
            write(0)
            server.reload()
            assert await knock(server, _bearer(secret)) == (401, "invalid_api_key")
    write(0, 1)
    async with server_with(links, "--auth", str(path)) as another:
        assert await knock(another, _bearer(secret)) == (401, "invalid_api_key")


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def _secret(server: Server, key: str, **body: Any) -> str:
    status, _, text = await post(server, "/v1/realtime/client_secrets", json=body, headers=_bearer(key))
    assert status == 200, text
    return str(json.loads(text)["value"])


CALLERS: dict[str, CallMaker] = {"live": live_call, "realtime": realtime_call}
each_call = pytest.mark.parametrize("name", CALLERS)


@each_call
async def test_a_call_whose_model_dies_is_told(name: str) -> None:
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: DyingModel(1, at=25))}, *NO_GRACE) as server,
        CALLERS[name](server) as caller,
    ):
        error = (await caller.comes("error"))["error"]
        assert (error["code"], error["type"]) == ("engine_failed", "server_error")
        if name == "live":
            assert (await caller.comes("session.closed"))["reason"] == "connection_lost"
        await until(lambda: len(server.registry) == 0, "the end")


def written(caller: Caller) -> str:
    deltas = "session.output_transcript.delta", "response.output_audio_transcript.delta"
    return " ".join(event["delta"] for event in caller.events if event["type"] in deltas)


@each_call
async def test_a_call_goes_on_with_another_model_when_its_own_dies(name: str) -> None:
    """In words that each protocol has: a response that failed, news. No client takes it for the end."""
    loads = Loads(lambda: DyingModel(1, at=25), lambda: CountingModel(1))
    async with (
        server_with({"dialogue": lambda: LocalLink(loads)}) as server,
        leaves_nothing(server),
        CALLERS[name](server) as caller,
    ):
        if name == "live":
            assert (await caller.comes("error"))["error"]["code"] == "engine_failed"
            await until(lambda: [each["code"] for each in caller.all("info")][-1:] == ["conversation_restarted"])
        else:
            assert (await caller.comes("response.done"))["response"]["status"] == "failed"
        await until(lambda: written(caller).count(" 12") == 2, "words of the other")
        assert server.engines["dialogue"].restarts == 1
        if name == "realtime":
            assert "error" not in caller.types


@each_call
async def test_a_caller_that_vanishes_is_missed(name: str) -> None:
    async with (
        running_server("--model", "echo", "--peer-timeout-s", "1") as server,
        leaves_nothing(server),
        CALLERS[name](server) as caller,
    ):
        await until(lambda: caller.ear.samples > 24_000, "a voice")
        blackhole(caller.pc)
        await until(lambda: len(server.registry) == 0, "the session's end")


@each_call
async def test_a_caller_that_never_connects_keeps_its_place_for_a_while(name: str) -> None:
    async with (
        running_server("--model", "echo", "--connect-timeout-s", "0.5") as server,
        leaves_nothing(server),
        offering() as offer,
    ):
        if name == "live":
            body = {"session": {"model": "echo"}, "transport": {"type": "webrtc", "sdp": offer["sdp"]}}
            status, _, _ = await post(server, SESSIONS, json=body)
        else:
            status, _, _ = await post(server, CALLS, data=offer["sdp"], headers=SDP)
        assert status == 201
        await until(lambda: len(server.registry) == 0, "the session's end")


BAD: dict[str, tuple[str | bytes, str]] = {
    "half": ('{"type": "sess', "invalid_json"),
    "binary": (b"\0\1", "invalid_json"),
    "not a number": ('{"type": "session.update", "session": {"tools": NaN}}', "invalid_json"),
    "deep": ('{"type": "session.update", "session": ' + '{"x":' * 5000, "invalid_json"),
    "no event": ('["session.update"]', "invalid_value"),
    "without a type": ("{}", "missing_required_parameter"),
    "twice a type": ('{"type": "session.update", "type": "nonsense"}', "unknown_event"),
    "unknown": ('{"type": "nonsense"}', "unknown_event"),
    "a long name": ('{"type": "' + "x" * 1000 + '"}', "invalid_value"),
}


@each_call
async def test_bad_events_on_a_call_cost_nothing_but_themselves(server: Server, name: str) -> None:
    async with leaves_nothing(server), CALLERS[name](server) as caller:
        await until(lambda: caller.events, "the channel")
        for message, code in BAD.values():
            before = len(caller.all("error"))
            caller.channel.send(message)
            await until(lambda before=before: len(caller.all("error")) > before, code)  # type: ignore[misc]
            assert caller.last("error")["error"]["code"] == code, message
        heard = caller.ear.samples
        await until(lambda: caller.ear.samples > heard + 12_000, "a voice that goes on")


@each_call
async def test_too_many_events_on_a_call_end_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good ones: an event that is told again costs the server more than its client."""
    # A slow machine takes seconds for hundreds, which bring room for as many again: for few in all, and one a second.
    for talk, burst, per_s in (
        (openai_realtime_talk, "_EVENT_BURST", "_EVENTS_PER_S"),
        (openai_live_talk, "MESSAGE_BURST", "MESSAGES_PER_S"),
    ):
        monkeypatch.setattr(talk, burst, 30)
        monkeypatch.setattr(talk, per_s, 1)
    async with (
        server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(1))}) as server,
        leaves_nothing(server),
        CALLERS[name](server) as caller,
    ):
        await until(lambda: caller.events, "the channel")
        for _ in range(150):
            caller.send("session.update", session={})
        await until(lambda: len(server.registry) == 0, "the end")
