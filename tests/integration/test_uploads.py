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
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

import aiohttp
import pytest

from rtc_server import access, uploads
from rtc_server.app import Server
from rtc_server.auth import Principal, Visitor
from rtc_server.config import parse
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from tests.conftest import running_server
from tests.support.media import encode, noise
from tests.support.scribe import BREAK, Scribe, numbered
from tests.support.waiting import until

MIB = 2**20
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def nothing_stays(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a client does: no fault of ours in the log, no temporary file that is still open."""
    made: list[IO[bytes]] = []
    make = tempfile.TemporaryFile

    def watched() -> IO[bytes]:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(uploads.tempfile, "TemporaryFile", watched)
    yield
    assert all(file.closed for file in made)
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not [
        record.getMessage() for record in faults if record.name in ("rtc_server.app", "asyncio", "aiohttp.server")
    ]


class Held(Server):
    """A server that transcribes by a :class:`Scribe`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/transcribe"

    @property
    def engine(self) -> EngineClient:
        return self.engines["transcribe"]


@contextlib.asynccontextmanager
async def serving(*arguments: str, slots: int = 2, heads: int = 0) -> AsyncIterator[Held]:
    server = Held(parse(["--port", "0", "--model", "echo", "--drain-s", "0", *arguments], environment={}))
    link = lambda: LocalLink(lambda: Scribe(slots, heads))  # noqa: E731
    server.engines["transcribe"] = server.registry.engines["transcribe"] = EngineClient("transcribe", link, Metrics())
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
    assert 45 <= len(text.split()) <= 50


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
    monkeypatch.setattr(uploads, "visitor_of", lambda _: stranger)
    assert access.visitor_of is not uploads.visitor_of
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
    monkeypatch.setattr(uploads, "_GRACE_S", 0.2)
    hold = asyncio.Event()
    try:
        status, _, text = await post(server.url, stream(WORDS, hold, 1000))
        assert (status, code_of(text)) == (408, "request_timeout")
    finally:
        hold.set()


async def test_who_takes_for_ever(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast enough at every moment, but without an end."""
    monkeypatch.setattr(uploads, "_UPLOAD_S", 0.3)

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

    monkeypatch.setattr(uploads.tempfile, "TemporaryFile", Full)
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
    assert not server.uploads._leashes


@pytest.mark.parametrize("accept", [b"*/*", b"text/event-stream"])
async def test_who_hangs_up_while_waiting(server: Held, accept: bytes) -> None:
    """The work stops: what is left of an hour is not transcribed for nobody."""
    body = encode(numbered(*[7] * 8000))
    head = b"POST /api/transcribe HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n" % (
        accept,
        len(body),
    )
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head + body)
    await until(lambda: server.engine.slots_used)
    writer.transport.abort()
    await until(lambda: not server.engine.slots_used, within_s=5)
    await until(lambda: not server.uploads._leashes)


async def test_who_does_not_read_the_events(server: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_EVENT_S", 0.3)
    event = uploads._event
    monkeypatch.setattr(uploads, "_event", lambda *what: f":{' ' * 20_000}\n{event(*what)}")
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
        await until(lambda: not server.engine.slots_used, within_s=60)


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
        await until(lambda: server.registry.draining)
        assert code_of((await post(server.url, WORDS))[2]) == "draining"
        hold.set()
        assert (await sending)[::2] == (200, "1 2 3\n")
        async with asyncio.timeout(10):
            await stopping


async def test_the_log_tells_how_much_and_not_what(server: Held, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await post(server.url, encode(numbered(777, 776)))
    lines = [record.getMessage() for record in caplog.records if record.name == "rtc_server.uploads"]
    assert len(lines) == 1
    assert lines[0].startswith("transcribed a file: 0.2 s of audio, 2 words")
    assert "777" not in caplog.text
