"""Files that are sent to be transcribed: what is refused, and before its body has come where that can be."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import io
import json
import os
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lab.inputs.files import encode
from lab.waiting import until
from rtc_server.access.principals import Principal, Visitor
from rtc_server.endpoints import transcribe, transcribe_body
from rtc_server.engine.client import EngineClient
from rtc_server.web import gate
from tests.conftest import running_server
from tests.support.scribe import numbered
from tests.support.uploads import EVENTS, WORDS, Held, code_of, post, serving, stream

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.mark.parametrize("data", [b"", b"garbage" * 1000, WORDS[:30]], ids=["empty", "garbage", "half a header"])
@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_no_audio(server: Held, data: bytes, headers: dict[str, str]) -> None:
    status, _, text = await post(server.url, data, headers=headers)
    assert (status, code_of(text)) == (422, "not_audio")


async def test_a_form_is_told_to_be_one(server: Held) -> None:
    status, _, text = await post(server.url, {"file": io.BytesIO(WORDS)})
    assert (status, code_of(text)) == (422, "not_audio")
    assert "form" in json.loads(text)["error"]["message"]


@pytest.mark.parametrize(
    "body", ["#EXTM3U\n#EXTINF:2,\nfile://{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"]
)
async def test_playlists_lead_nowhere(server: Held, tmp_path: Any, body: str) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(WORDS)
    status, _, text = await post(server.url, body.format(secret).encode())
    assert (status, code_of(text)) == (422, "not_audio")


@pytest.mark.parametrize("form", ["", "xml", "JSON", "txt,srt", "../../etc/passwd"])
async def test_a_format_that_is_none(server: Held, form: str) -> None:
    status, _, text = await post(server.url, WORDS, params={"format": form})
    assert (status, code_of(text)) == (400, "bad_request")
    assert "json, txt, srt, vtt" in text


async def test_no_service() -> None:
    async with running_server("--model", "echo") as echo:
        status, _, text = await post(f"http://127.0.0.1:{echo.port}/api/transcribe", WORDS)
    assert (status, code_of(text)) == (404, "unknown_service")


async def test_a_visitor_who_may_not(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = Visitor(Principal("stranger", services=frozenset({"echo"})), "")
    monkeypatch.setattr(transcribe, "visitor_of", lambda _: stranger)
    assert gate.visitor_of is not transcribe.visitor_of  # type: ignore[attr-defined]
    status, _, text = await post(server.url, WORDS)
    assert (status, code_of(text)) == (403, "forbidden")


async def test_an_engine_that_loads(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineClient, "ready", False)
    status, headers, text = await post(server.url, WORDS)
    assert (status, code_of(text)) == (503, "engine_unavailable")
    assert "Retry-After" in headers  # type: ignore[operator]


async def test_more_than_is_taken() -> None:
    """By the length that is named and by what really comes. Packed, it is not taken at all."""
    async with serving("--max-upload-mb", "1") as server:

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(64 * 1024)

        packed = gzip.compress(bytes(20 * MIB))
        assert len(packed) < 100_000
        too_large, refused = (413, "too_large"), (415, "unsupported_media_type")
        for data, headers, expected in (
            (bytes(2 * MIB), {}, too_large),
            (endless(), {}, too_large),
            (packed, {"Content-Encoding": "gzip"}, refused),
        ):
            with contextlib.suppress(aiohttp.ClientConnectionError):  # it may hear of a closed door before the answer
                status, _, text = await post(server.url, data, headers=headers)
                assert (status, code_of(text)) == expected
        status, _, text = await post(f"{server.url}?format=txt", encode(numbered(*range(1, 250))))
        assert status == 200, "just below"


async def test_a_named_length_alone_is_enough_to_refuse() -> None:
    async with serving("--max-upload-mb", "1") as server:
        head = b"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        assert b"413" in await raw(server, head)
        head = b"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        head += b"Content-Length: 9999999\r\n\r\n"
        assert (await raw(server, head)).startswith(b"HTTP/1.1 413"), "before it is asked to go on"


async def raw(server: Held, request: bytes) -> bytes:
    """The first line of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.readline()
    finally:
        writer.close()


async def test_who_is_too_slow(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcribe_body, "_GRACE_S", 0.2)
    hold = asyncio.Event()
    try:
        status, _, text = await post(server.url, stream(WORDS, hold, 1000))
        assert (status, code_of(text)) == (408, "request_timeout")
    finally:
        hold.set()


async def test_who_takes_for_ever(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast enough at every moment, but without an end."""
    monkeypatch.setattr(transcribe_body, "_UPLOAD_S", 0.3)

    async def dribble() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)
            await asyncio.sleep(0.01)

    status, _, text = await post(server.url, dribble())
    assert (status, code_of(text)) == (408, "request_timeout")


async def test_a_full_disk(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any, /) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    status, headers, text = await post(server.url, WORDS)
    assert (status, code_of(text)) == (503, "overloaded")
    assert "Retry-After" in headers  # type: ignore[operator]


async def test_a_full_server_says_so_before_the_body_comes() -> None:
    async with serving(slots=1) as server:
        hold = asyncio.Event()
        first = asyncio.create_task(post(f"{server.url}?format=txt", stream(WORDS, hold, 100)), name="first")
        await until(lambda: server.uploads._receiving)
        status, headers, text = await post(server.url, WORDS)
        assert (status, code_of(text)) == (503, "server_full")
        assert int(headers["Retry-After"]) > 0  # type: ignore[index, call-overload]
        hold.set()
        assert (await first)[::2] == (200, "1 2 3\n")
        assert (await post(server.url, WORDS))[0] == 200


async def test_a_slot_taken_meanwhile() -> None:
    """By a call: calls do not wait for files that are still on their way."""
    async with serving(slots=1) as server:
        hold = asyncio.Event()
        first = asyncio.create_task(post(server.url, stream(WORDS, hold, 100)), name="first")
        await until(lambda: server.uploads._receiving)

        class Ear:
            def on_output(self, _: object) -> None:
                pass

            def on_engine_error(self, _: object) -> None:
                pass

        call = await server.engine.open(Ear())
        hold.set()
        status, _, text = await first
        assert (status, code_of(text)) == (503, "server_full")
        call.close()
