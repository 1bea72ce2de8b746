"""Files that are sent to be transcribed: as proxies and other programs want it."""

from __future__ import annotations

import asyncio
import json
import threading

import aiohttp
import pytest

from lab.inputs.files import encode
from lab.waiting import until
from rtc_server.endpoints import transcribe, transcribe_answers
from tests.support.scribe import BREAK, numbered
from tests.support.uploads import WORDS, Held, serving


async def put(url: str, data: bytes) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.put(url, data=data) as response:
        return response.status, await response.text()


@pytest.mark.parametrize("end", ["", "/", "/meeting.wav"])
async def test_a_file_may_be_put_as_curl_does_it(server: Held, end: str) -> None:
    """``curl -T meeting.wav URL/`` puts the file's name behind the URL."""
    assert await put(f"{server.url}{end}?format=txt", WORDS) == (200, "1 2 3\n")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if what a proxy waits for were a moment."""
    monkeypatch.setattr(transcribe, "_LOOK_S", 0.01)
    monkeypatch.setattr(transcribe_answers, "_KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(transcribe_answers.Document, "first_s", 0.02)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("form", "first", "whole"),
    [
        ("json", "\n", '"text": "1 2 3"'),
        ("txt", "\n", "1 2 3\n"),
        ("srt", "\n", "1\n00:00:00,000 --> 00:00:01,000\n1 2 3\n"),
        ("vtt", "WEBVTT\n", "\n00:00:00.000 --> 00:00:01.000\n1 2 3\n"),
    ],
)
async def test_an_answer_that_takes_long_begins_and_is_kept_alive(form: str, first: str, whole: str) -> None:
    """What comes before the document is nothing to who reads it."""
    gate = threading.Event()
    async with (
        serving(gate=gate) as server,
        aiohttp.ClientSession() as http,
        http.post(f"{server.url}?format={form}", data=WORDS) as response,
    ):
        assert response.status == 200
        begins = await response.content.readexactly(len(first) + 3)
        assert begins.decode() == first + "\n\n\n"
        gate.set()
        text = begins.decode() + await response.text()
    assert whole in text
    if form == "json":
        assert json.loads(text)["duration_ms"] == 400
    assert not text.replace("WEBVTT\n", "").strip("\n").startswith("WEBVTT")


@pytest.mark.usefixtures("impatient")
async def test_an_error_after_the_beginning_is_seen() -> None:
    """JSON has a word for it; all else breaks off, so that no client takes it for the whole."""
    body = encode(numbered(*range(1, 40), BREAK, *[1] * 100))
    for form in ("json", "txt", "vtt"):
        gate = threading.Event()
        async with (
            serving(gate=gate) as server,
            aiohttp.ClientSession() as http,
            http.post(f"{server.url}?format={form}", data=body) as response,
        ):
            assert response.status == 200
            gate.set()
            if form == "json":
                assert json.loads(await response.text())["error"]["code"] == "engine_failed"
            else:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.text()


@pytest.mark.usefixtures("impatient")
async def test_who_hangs_up_while_an_engine_is_silent_gives_the_slot_back() -> None:
    gate = threading.Event()
    async with serving(gate=gate) as server:
        head = b"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(WORDS)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head + WORDS)
        await until(lambda: server.engine.slots_used)
        writer.transport.abort()
        await until(lambda: not len(server.admission))
        gate.set()
