"""``POST /api/transcribe``: what comes back, what is refused, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import io
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any, Final

import aiohttp
import numpy as np
import pytest

from lab.inputs.files import encode, noise
from lab.waiting import until
from rtc_server.access.principals import Principal, Visitor
from rtc_server.app import Server
from rtc_server.config import Settings, parse
from rtc_server.decoding.reader import Decoders
from rtc_server.endpoints import transcribe, transcribe_answers, transcribe_body
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.errors import ServerFull
from rtc_server.metrics import Metrics
from rtc_server.services import make_engines
from rtc_server.web import gate
from tests.conftest import running_server
from tests.support.scribe import BREAK, Scribe, numbered

MIB = 2**20
EVENTS = {"Accept": "text/event-stream"}


_ENGINE_ENDED: Final = "engine transcribe "
"""What tests that end an engine find in the log."""


@pytest.fixture(autouse=True)
def nothing_stays(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a client does: no fault of ours in the log, no temporary file that is still open."""
    made: list[IO[bytes]] = []
    make = tempfile.TemporaryFile

    def watched() -> IO[bytes]:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(transcribe_body.tempfile, "TemporaryFile", watched)
    yield
    assert all(file.closed for file in made)
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    ours = [record for record in faults if record.name.startswith(("rtc_server", "asyncio", "aiohttp"))]
    assert not [record.getMessage() for record in ours if not record.getMessage().startswith(_ENGINE_ENDED)]


class Held(Server):
    """A server that transcribes by a :class:`Scribe`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/transcribe"

    @property
    def engine(self) -> EngineClient:
        return self.engines["transcribe"]


@contextlib.asynccontextmanager
async def serving(
    *arguments: str, slots: int = 2, heads: int = 0, gate: threading.Event | None = None
) -> AsyncIterator[Held]:
    def engines(settings: Settings, metrics: Metrics) -> dict[str, EngineClient]:
        scribe = EngineClient("transcribe", lambda: LocalLink(lambda: Scribe(slots, heads, gate)), metrics)
        return {**make_engines(settings, metrics), "transcribe": scribe}

    settings = parse(["--port", "0", "--model", "echo", "--drain-s", "0", *arguments], environment={})
    server = Held(settings, make_engines=engines)
    await server.start()
    try:
        await server.wait_ready()
        yield server
        await until(lambda: not server.engine.slots_used)
    finally:
        await server.stop(0.0)


@pytest.fixture
async def server() -> AsyncIterator[Held]:
    async with serving() as running:
        yield running


async def post(
    url: str, data: Any, begun: asyncio.Event | None = None, **more: Any
) -> tuple[int, aiohttp.typedefs.LooseHeaders, str]:
    """``begun``: set when the answer has."""
    async with aiohttp.ClientSession() as http, http.post(url, data=data, **more) as response:
        if begun:
            begun.set()
        return response.status, response.headers, await response.text()


def code_of(text: str) -> str:
    return json.loads(text)["error"]["code"]  # type: ignore[no-any-return]


def events_of(text: str) -> list[tuple[str, Any]]:
    made = []
    for block in text.strip().split("\n\n"):
        if not block.startswith(":"):
            name, data = block.split("\n")
            made.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return made


async def stream(data: bytes, hold: asyncio.Event, after: int) -> AsyncIterator[bytes]:
    """A body that stops in the middle until it may go on."""
    yield data[:after]
    await hold.wait()
    yield data[after:]


WORDS = encode(numbered(1, 2, 0, 0, 3))


# What comes back


async def test_json(server: Held) -> None:
    status, headers, text = await post(server.url, WORDS)
    assert status == 200
    assert headers["Content-Type"] == "application/json; charset=utf-8"  # type: ignore[index, call-overload]
    assert json.loads(text) == {
        "duration_ms": 400,
        "text": "1 2 3",
        "words": [
            {"text": "1", "start_ms": 0, "end_ms": 80},
            {"text": "2", "start_ms": 80, "end_ms": 160},
            {"text": "3", "start_ms": 320, "end_ms": 400},
        ],
        "turns": [{"start_ms": 0, "end_ms": 400, "text": "1 2 3"}],
    }


@pytest.mark.parametrize(
    ("form", "kind", "expected"),
    [
        ("txt", "text/plain", "1 2 3\n"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:01,000\n1 2 3\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n1 2 3\n"),
    ],
)
async def test_other_formats(server: Held, form: str, kind: str, expected: str) -> None:
    status, headers, text = await post(f"{server.url}?format={form}", WORDS)
    assert (status, text) == (200, expected)
    assert headers["Content-Type"] == f"{kind}; charset=utf-8"  # type: ignore[index, call-overload]


@pytest.mark.parametrize("query", ["fromat=txt", "Format=txt", "format=txt&language=en"])
async def test_a_parameter_that_does_not_exist(server: Held, query: str) -> None:
    """Left out without a word, the answer would be of another kind than was asked for."""
    status, _, text = await post(f"{server.url}?{query}", WORDS)
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (400, "bad_request")
    assert ("Did you mean format?" in error["message"]) is ("language" not in query)


@pytest.mark.parametrize("headers", [{"Content-Type": "audio/wav"}, {"Content-Type": "nonsense"}, {}])
async def test_any_type_any_container_any_framing(server: Held, headers: dict[str, str]) -> None:
    """The name and the type of a file say nothing."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(WORDS), 1000):
            yield WORDS[start : start + 1000]

    for body in (WORDS, chunks()):
        status, _, text = await post(f"{server.url}?format=txt", body, headers=headers)
        assert (status, text) == (200, "1 2 3\n")
    opus = encode(noise(1, rate_hz=48_000), "ogg", "libopus", 48_000)
    assert json.loads((await post(server.url, opus, headers=headers))[2])["duration_ms"] == pytest.approx(1000, abs=20)


async def test_turns_of_the_model() -> None:
    async with serving(heads=4) as server:
        assert (await post(f"{server.url}?format=txt", WORDS))[2] == "1 2\n\n3\n"


async def test_words_as_they_are_found() -> None:
    numbers = range(1, 200)
    async with (
        serving() as server,
        aiohttp.ClientSession() as http,
        http.post(server.url, data=encode(numbered(*numbers)), headers=EVENTS) as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        first = await response.content.readuntil(b"\n\n")
        rest = await response.text()
    events = events_of(first.decode() + rest)
    assert [(name, event["text"]) for name, event in events[:-1]] == [("word", str(number)) for number in numbers]
    assert events[0][1] == {"text": "1", "start_ms": 0, "end_ms": 80}
    assert events[-1] == ("done", {"duration_ms": len(numbers) * 80, "words": len(numbers)})


async def test_files_at_a_time_are_as_each_alone(server: Held) -> None:
    bodies = [encode(numbered(*range(start, start + 60))) for start in (1, 101)]
    together = await asyncio.gather(*(post(server.url, body) for body in bodies))
    alone = [await post(server.url, body) for body in bodies]
    assert [text for _, _, text in together] == [text for _, _, text in alone]


async def test_a_file_that_breaks_off_is_heard_as_far_as_it_goes(server: Held) -> None:
    body = encode(numbered(*range(1, 101)))
    text = (await post(f"{server.url}?format=txt", body[: len(body) // 2]))[2]
    words, said = text.split("\n\n")
    assert 45 <= len(words.split()) <= 50
    assert said == "[The file breaks off before its end: what comes after that is missing.]\n"


async def test_who_waits_to_be_let_in_sends_when_the_door_is_open(server: Held) -> None:
    status, _, text = await post(f"{server.url}?format=txt", WORDS, expect100=True)
    assert (status, text) == (200, "1 2 3\n")


# What is refused


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
    assert gate.visitor_of is not transcribe.visitor_of
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

    monkeypatch.setattr(transcribe_body.tempfile, "TemporaryFile", Full)
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


# What goes wrong on the way


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_an_engine_that_breaks(server: Held, headers: dict[str, str]) -> None:
    body = encode(numbered(*range(1, 40), BREAK, *[1] * 100))
    status, _, text = await post(server.url, body, headers=headers)
    if headers:
        name, error = events_of(text)[-1]
        assert (status, name, error["code"]) == (200, "error", "engine_failed")
        assert error["retryable"] is True
    else:
        assert (status, code_of(text)) == (503, "engine_failed")
    await until(lambda: server.engine.ready)
    assert (await post(server.url, WORDS))[0] == 200


async def test_who_hangs_up_while_sending(server: Held) -> None:
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n" + WORDS[:1000])
        await until(lambda: server.uploads._receiving)
        writer.transport.abort()
        await until(lambda: not server.uploads._receiving)
        del reader
    assert not len(server.admission)


@pytest.mark.parametrize("accept", [b"*/*", b"text/event-stream"])
async def test_who_hangs_up_while_waiting(server: Held, accept: bytes) -> None:
    """The work stops: what is left of an hour is not transcribed in vain."""
    body = encode(numbered(*[7] * 8000))
    head = b"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n" % (
        accept,
        len(body),
    )
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head + body)
    await until(lambda: server.engine.slots_used)
    writer.transport.abort()
    await until(lambda: not server.engine.slots_used, timeout_s=5)
    await until(lambda: not len(server.admission))


async def test_who_does_not_read_the_events(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcribe_answers, "_EVENT_S", 0.3)
    event = transcribe_answers._event
    monkeypatch.setattr(transcribe_answers, "_event", lambda *what: f":{' ' * 20_000}\n{event(*what)}")
    body = encode(numbered(*[100] * 2000))
    head = (
        b"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nContent-Length: %d\r\n\r\n"
    )
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, head % len(body) + body)
        await until(lambda: server.engine.slots_used)
        await until(lambda: not server.engine.slots_used, timeout_s=60)


async def test_a_shutdown_ends_it_with_a_word() -> None:
    """Those who wait for an answer get one, and are told to come again."""
    async with serving() as server:
        hold, begun = asyncio.Event(), asyncio.Event()
        sending = asyncio.create_task(post(server.url, stream(WORDS, hold, 100)), name="sending")
        body = encode(numbered(*[7] * 8000))
        waiting = asyncio.create_task(post(server.url, body, begun, headers=EVENTS), name="waiting")
        await until(lambda: server.uploads._receiving and begun.is_set())  # before that, the answer would be a 503
        stopping = asyncio.create_task(server.stop(0.0), name="stopping")
        hold.set()
        status, headers, text = await sending
        assert (status, code_of(text)) == (503, "draining")
        assert "Retry-After" in headers  # type: ignore[operator]
        name, error = events_of((await waiting)[2])[-1]
        assert (name, error["code"]) == ("error", "draining")
        await stopping


async def test_a_shutdown_gives_its_grace() -> None:
    async with serving() as server:
        hold = asyncio.Event()
        sending = asyncio.create_task(post(f"{server.url}?format=txt", stream(WORDS, hold, 100)), name="sending")
        await until(lambda: server.uploads._receiving)
        stopping = asyncio.create_task(server.stop(20.0), name="stopping")
        await until(lambda: server.admission.draining)
        assert code_of((await post(server.url, WORDS))[2]) == "draining"
        hold.set()
        assert (await sending)[::2] == (200, "1 2 3\n")
        async with asyncio.timeout(10):
            await stopping


async def test_the_log_tells_how_much_and_not_what(server: Held, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await post(server.url, encode(numbered(777, 776)))
    lines = [record.getMessage() for record in caplog.records if record.name == "rtc_server.endpoints.transcribe"]
    assert len(lines) == 1
    assert lines[0].startswith("transcribed a file: 0.2 s of audio, 2 words")
    assert "777" not in caplog.text


# As proxies and other programs want it


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


# What is in a file and was not heard


async def test_what_is_missing_is_told_in_every_form(server: Held) -> None:
    body = encode(numbered(*range(1, 101)))[:-5000]
    sentence = "The file breaks off before its end: what comes after that is missing."
    made = json.loads((await post(server.url, body))[2])
    assert made["warnings"] == [{"code": "cut_off", "message": sentence}]
    events = events_of((await post(server.url, body, headers=EVENTS))[2])
    assert [name for name, _ in events[-2:]] == ["warning", "done"]
    assert events[-2][1]["code"] == "cut_off"
    assert (await post(f"{server.url}?format=txt", body))[2].endswith(f"\n[{sentence}]\n")
    assert (await post(f"{server.url}?format=vtt", body))[2].endswith(f"\nNOTE {sentence}\n")
    assert "[The file breaks off" in (await post(f"{server.url}?format=srt", body))[2]


async def test_the_second_piece_of_a_recording_is_told_what_is_missing(server: Held) -> None:
    webm = encode(noise(2, rate_hz=48_000), "webm", "libopus", 48_000)
    status, _, text = await post(server.url, webm[webm.index(b"\x1f\x43\xb6\x75") :])
    assert (status, code_of(text)) == (422, "not_audio")
    assert "beginning of the recording is missing" in text


# What one file, and one visitor, may take


async def test_a_file_that_wants_gigabytes_is_refused_and_costs_no_call(server: Held) -> None:
    claims = WORDS[:36] + b"LIST\0\xff\xff\x7fINFOINAM\0\xfe\xff\x7f" + b"name" * 3
    for headers in ({}, EVENTS):
        status, _, text = await post(server.url, claims, headers=headers)
        assert status == 422, text
    assert (await post(server.url, WORDS))[0] == 200


async def test_an_address_has_as_many_files_as_sessions() -> None:
    async with serving("--sessions-per-address", "1", slots=4) as server:
        hold = asyncio.Event()
        first = asyncio.create_task(post(f"{server.url}?format=txt", stream(WORDS, hold, 100)), name="first")
        await until(lambda: server.uploads._receiving)
        status, headers, text = await post(server.url, WORDS)
        assert (status, code_of(text)) == (429, "too_many_sessions")
        assert "Retry-After" in headers  # type: ignore[operator]
        hold.set()
        assert (await first)[0] == 200
        assert (await post(server.url, WORDS))[0] == 200
        assert not len(server.admission)


async def test_files_and_calls_are_counted_together() -> None:
    async with serving("--max-sessions", "1", slots=4) as server:
        hold = asyncio.Event()
        first = asyncio.create_task(post(f"{server.url}?format=txt", stream(WORDS, hold, 100)), name="first")
        await until(lambda: server.uploads._receiving)
        assert code_of((await post(server.url, WORDS))[2]) == "server_full"
        with pytest.raises(ServerFull):
            server.admission.admit("echo", Visitor(Principal("other"), "192.0.2.1"))
        hold.set()
        assert (await first)[0] == 200


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_hours_of_silence_in_kilobytes_are_more_than_a_session_may_have(headers: dict[str, str]) -> None:
    quiet = encode(np.broadcast_to(np.float32(0), ((600 * 2000),)), "flac", "flac", 2000)
    async with serving("--max-session-s", "30") as server:
        status, _, text = await post(server.url, quiet, headers=headers)
        if status == 200:
            assert events_of(text)[-1][1]["code"] == "time_limit"
        else:
            assert (status, code_of(text)) == (413, "time_limit")
        assert "30 s" in text
        await until(lambda: not server.engine.slots_used)


async def test_a_token_limits_a_file_as_it_limits_a_call(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = Visitor(Principal("sub/x", max_session_s=3.0), "127.0.0.1")
    monkeypatch.setattr(transcribe, "visitor_of", lambda _: visitor)
    assert (await post(server.url, encode(numbered(*[1] * 36))))[0] == 200
    status, _, text = await post(server.url, encode(numbered(*[1] * 60)))
    assert (status, code_of(text)) == (413, "time_limit")


async def test_a_token_limits_the_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock, from the first byte on."""
    visitor = Visitor(Principal("sub/x", max_session_s=0.2), "127.0.0.1")
    monkeypatch.setattr(transcribe, "visitor_of", lambda _: visitor)
    async with serving() as server:
        hold = asyncio.Event()
        try:
            status, _, text = await post(server.url, stream(WORDS, hold, 100))
        finally:
            hold.set()
        assert (status, code_of(text)) == (413, "time_limit")
        await until(lambda: not server.uploads._receiving)


async def test_a_place_is_taken_until_a_slot_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being opened counts as well: six at once on four slots were six decoders."""
    async with serving(slots=1) as server:
        go_on = asyncio.Event()
        start = Decoders.start

        async def slow(decoders: Decoders, source: IO[bytes]) -> Any:
            await go_on.wait()
            return await start(decoders, source)

        monkeypatch.setattr(Decoders, "start", slow)
        first = asyncio.create_task(post(server.url, WORDS), name="first")
        await until(lambda: server.uploads._receiving)
        assert code_of((await post(server.url, WORDS))[2]) == "server_full"
        go_on.set()
        assert (await first)[0] == 200
