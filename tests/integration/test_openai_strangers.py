"""What strangers do at the doors of OpenAI's protocols: none of it costs another client anything."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.app import Server
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.endpoints import openai_realtime_talk as talk
from rtc_server.engine.local import LocalLink
from rtc_server.protocols.openai.events import MAX_CALL_BYTES
from rtc_server.sessions.listeners import MAX_LISTENERS
from rtc_server.webrtc.peer import _MAX_BUFFERED_BYTES
from tests.conftest import server_with
from tests.integration.test_moshi import Tone
from tests.support.calls import offering
from tests.support.fake_models import CountingModel
from tests.support.leftovers import leaves_nothing
from tests.support.live import live_client
from tests.support.openai_calls import CALLS, SESSIONS, live_call, post, realtime_call
from tests.support.openai_realtime import realtime_client

pytestmark = pytest.mark.slow


@pytest.fixture
async def counting() -> AsyncIterator[Server]:
    async with server_with({"dialogue": lambda: LocalLink(lambda: CountingModel(2))}) as server:
        yield server


def url(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


async def test_the_call_of_another_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    """To be hung up, and to be listened to; the key that it was made with, and secrets that come of that, get at it."""
    mine, other = credentials.new_key(), credentials.new_key()
    path = tmp_path / "auth.toml"
    entries = [
        f'[[keys]]\nname = "{name}"\nhash = "{credentials.hash_of(key)}"\n'
        for name, key in (("mine", mine), ("other", other))
    ]
    path.write_text("".join(entries))
    links = {"dialogue": lambda: LocalLink(lambda: CountingModel(2))}
    async with server_with(links, "--auth", str(path)) as server, aiohttp.ClientSession() as http:

        def bearer(key: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {key}"}

        async def secret(key: str) -> str:
            answer = await post(server, "/v1/realtime/client_secrets", json={}, headers=bearer(key))
            return str(json.loads(answer[2])["value"])

        page, stranger = bearer(await secret(mine)), bearer(await secret(other))
        async with live_call(server, page) as live, realtime_call(server, headers=page) as realtime:
            await live.comes("session.started")
            await realtime.comes("session.created")
            attach = {live: f"{SESSIONS}/{live.id}/attach", realtime: f"/v1/realtime?call_id={realtime.id}"}
            hangup = {live: f"{SESSIONS}/{live.id}/hangup", realtime: f"{CALLS}/{realtime.id}/hangup"}
            for headers, status in ((bearer(other), 404), (stranger, 404), ({}, 401)):
                for caller in (live, realtime):
                    assert (await post(server, hangup[caller], headers=headers))[0] == status
                    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                        await http.ws_connect(url(server, attach[caller]), headers=headers)
                    assert refused.value.status == status
            for crossed in (f"{SESSIONS}/live_{realtime.id[4:]}/attach", f"/v1/realtime?call_id=rtc_{live.id[5:]}"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await http.ws_connect(url(server, crossed), headers=bearer(mine))
                assert refused.value.status == 404, "it speaks another protocol"
            assert len(server.registry) == 2
            for caller in (live, realtime):
                async with http.ws_connect(url(server, attach[caller]), headers=bearer(mine)) as raw:
                    assert (await raw.receive_json())["type"] in ("session.started", "session.created")
                assert (await post(server, hangup[caller], headers=bearer(mine)))[0] == 200


@pytest.mark.parametrize("path", [SESSIONS, "/v1/realtime", "/api/chat"])
async def test_pings_by_the_thousand_are_answered_and_hold_up_no_other(counting: Server, path: str) -> None:
    """Also before a session has begun."""
    async with (
        leaves_nothing(counting),
        live_client(url(counting, ""), Tone(440)) as other,
        aiohttp.ClientSession() as http,
        http.ws_connect(url(counting, path), autoping=False) as raw,
    ):
        await until(lambda: other.heard.size, "a voice")
        pongs = 0
        writer = raw._writer
        writer.transport.write((b"\x89\x80" + bytes(4)) * 20_000 + b"\x89\x81" + bytes(4) + b"!")
        while True:
            message = await raw.receive(20)
            if message.type is aiohttp.WSMsgType.PONG:
                pongs += 1
                if bytes(message.data) == b"!":
                    break
        assert pongs == 20_001
        heard = other.heard.size
        await until(lambda: other.heard.size > heard + 5 * FRAME_SAMPLES, "the voice of another")


async def test_text_that_is_none_ends_a_socket(counting: Server) -> None:
    """RFC 6455, section 8.1: what is not UTF-8 fails the connection."""
    async with leaves_nothing(counting):
        async with live_client(url(counting, ""), talks=False) as client:
            await client.wait_for("session.started")
            await client.socket._writer.send_frame(b'{"type": "\xff"}', aiohttp.WSMsgType.TEXT)
            await until(lambda: client.socket.closed, "the close")
            assert client.socket.close_code == aiohttp.WSCloseCode.INVALID_TEXT
        async with realtime_client(url(counting, "/v1/realtime"), None) as other:
            await other.comes("session.created")
            await other.socket._writer.send_frame(b"\xed\xa0\x80", aiohttp.WSMsgType.TEXT)
            assert await other.listened() == aiohttp.WSCloseCode.INVALID_TEXT


@pytest.mark.parametrize(("path", "events"), [(SESSIONS, 4_000), ("/v1/realtime", 20_000)])
async def test_a_shower_of_tiny_events_is_bounded(counting: Server, path: str, events: int) -> None:
    """Events without any audio in them count as if they had some."""
    live = path == SESSIONS
    type_ = "session.input_audio.append" if live else "input_audio_buffer.append"
    event = json.dumps({"type": type_, "audio": ""})
    async with (
        leaves_nothing(counting),
        live_client(url(counting, ""), Tone(440)) as other,
        aiohttp.ClientSession() as http,
        http.ws_connect(url(counting, path)) as raw,
    ):
        if live:
            await raw.send_str(json.dumps({"type": "session.start", "session": {"model": "dialogue"}}))
        await until(lambda: len(counting.registry) == 2, "a session")

        async def shower() -> None:
            with contextlib.suppress(ConnectionError):
                for _ in range(events):
                    await raw.send_str(event)

        showering = asyncio.create_task(shower())
        codes = []
        async for message in raw:
            told = json.loads(message.data)
            if told["type"] == "error":
                codes.append(told["error"]["code"])
                break
        assert codes == ["rate_limit_exceeded" if live else "rate_limited"]
        heard = other.heard.size
        await until(lambda: other.heard.size > heard + 5 * FRAME_SAMPLES, "the voice of another")
        showering.cancel()
        await asyncio.gather(showering, return_exceptions=True)


async def test_audio_on_a_socket_beside_a_call_counts_as_any_event(
    counting: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which hears none: it would be read for nothing."""
    monkeypatch.setattr(talk, "_EVENTS_PER_S", 1)  # the time that it takes to send them must not bring room for as many
    audio = base64.b64encode(bytes(480_000)).decode()
    async with leaves_nothing(counting), realtime_call(counting) as caller:
        await caller.comes("session.created")
        async with realtime_client(url(counting, f"/v1/realtime?call_id={caller.id}"), None) as beside:
            await beside.comes("session.created")
            for _ in range(talk._EVENT_BURST * talk._EVENT_BYTES // len(audio) + 2):
                await beside.send("input_audio_buffer.append", audio=audio)
            assert (await beside.comes("error"))["error"]["code"] == "rate_limit_exceeded"
            assert len(counting.registry) == 1


async def test_as_many_sockets_beside_a_call_as_there_may_be(counting: Server) -> None:
    async with leaves_nothing(counting), realtime_call(counting) as caller, contextlib.AsyncExitStack() as stack:
        await caller.comes("session.created")
        at = url(counting, f"/v1/realtime?call_id={caller.id}")
        clients = [await stack.enter_async_context(realtime_client(at, None)) for _ in range(MAX_LISTENERS)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stack.enter_async_context(realtime_client(at, None))
        assert refused.value.status == 503
        await clients[0].send("session.update", session={"instructions": "x"})
        for client in clients:
            await client.comes("session.updated")
        await post(counting, f"{CALLS}/{caller.id}/hangup")
        for client in clients:
            await client.listened()


def stop_reading(client: aiohttp.ClientWebSocketResponse) -> None:
    """What the kernel takes for it is little."""
    transport = client._response.connection.transport  # type: ignore[union-attr]
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    transport.pause_reading()


async def test_one_beside_a_call_that_never_reads_is_dropped(counting: Server) -> None:
    """The call, and whom else is told of it, go on."""
    async with leaves_nothing(counting), realtime_call(counting) as caller:
        await caller.comes("session.created")
        (session,) = counting.registry
        at = url(counting, f"/v1/realtime?call_id={caller.id}")
        async with realtime_client(at, None) as deaf, realtime_client(at, None) as other:
            await deaf.comes("session.created")
            stop_reading(deaf.socket)
            while len(session.listeners) == 2:
                await other.send("session.update", session={"instructions": "x" * 60_000})
                await asyncio.sleep(0.05)
            deaf.socket._response.connection.transport.resume_reading()  # type: ignore[union-attr]
            told = other.types.count("session.updated")
            await other.send("session.update", session={})
            await until(lambda: other.types.count("session.updated") > told, "an answer")
            assert len(counting.registry) == 1


async def test_one_attached_that_never_reads_is_dropped(counting: Server) -> None:
    async with leaves_nothing(counting), live_call(counting) as caller, aiohttp.ClientSession() as http:
        await caller.comes("session.started")
        (session,) = counting.registry
        async with http.ws_connect(url(counting, f"{SESSIONS}/{caller.id}/attach")) as raw:
            await raw.receive()
            stop_reading(raw)
            while len(session.listeners) == 1:
                with contextlib.suppress(ConnectionError):
                    await raw.send_json({"type": "session.update", "session": {"triggers": ["x" * 60_000]}})
                await asyncio.sleep(0.05)
            raw._response.connection.transport.resume_reading()  # type: ignore[union-attr]
        words = len(caller.text)
        await until(lambda: len(caller.text) > words, "words")


async def test_a_channel_that_takes_nothing_costs_a_bounded_queue(counting: Server) -> None:
    """Its client's network takes the voice, and no more of the events."""

    async def swallow(_: object) -> None:
        pass

    async with leaves_nothing(counting), realtime_call(counting) as caller:
        await caller.comes("session.created")
        (session,) = counting.registry
        caller.pc.sctp._receive_data_chunk = swallow
        at = url(counting, f"/v1/realtime?call_id={caller.id}")
        most = 0
        async with realtime_client(at, None) as beside:
            await beside.comes("session.created")
            for number in range(1, 41):
                await beside.send("session.update", session={"instructions": "x" * 60_000})
                await until(lambda number=number: beside.types.count("session.updated") == number, "an answer")  # type: ignore[misc]
                most = max(most, session.transport._peer._channel.bufferedAmount)  # type: ignore[attr-defined]
        assert _MAX_BUFFERED_BYTES < most < _MAX_BUFFERED_BYTES + 64_000
        heard = caller.ear.samples
        await until(lambda: caller.ear.samples > heard + 12_000, "a voice that goes on")


async def test_a_call_may_say_as_much_of_itself_as_a_socket(counting: Server) -> None:
    """The instructions of an agent and its tools, beside the offer; of more than there may be it is told."""
    instructions = "x" * 200_000
    async with leaves_nothing(counting):
        async with live_call(counting, instructions=instructions) as caller:
            await caller.comes("session.started")
        async with realtime_call(counting, {"type": "realtime", "instructions": instructions}) as caller:
            assert (await caller.comes("session.created"))["session"]["instructions"] == instructions
        async with offering() as offer:
            session = {"model": "dialogue", "instructions": "x" * MAX_CALL_BYTES}
            body = {"session": session, "transport": {"type": "webrtc", "sdp": offer["sdp"]}}
            status, _, text = await post(counting, SESSIONS, json=body)
            assert (status, json.loads(text)["error"]["code"]) == (413, "too_large")
            body = {
                "session": {"model": "dialogue"},
                "transport": {"type": "webrtc", "sdp": offer["sdp"] + "x" * 70_000},
            }
            status, _, text = await post(counting, SESSIONS, json=body)
            assert (status, json.loads(text)["error"]["param"]) == (400, "transport.sdp")
            status, _, text = await post(counting, "/api/offer", json={**offer, "sdp": offer["sdp"] + "x" * 70_000})
            assert (status, json.loads(text)["error"]["code"]) == (413, "too_large"), "other bodies are smaller"
