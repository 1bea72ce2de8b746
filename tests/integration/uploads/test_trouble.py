"""Files that are sent to be transcribed: engines that break, clients that leave or do not read, shutdowns, the log."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from lab.inputs.files import encode
from lab.waiting import until
from rtc_server.endpoints import transcribe_answers
from tests.support.scribe import BREAK, numbered
from tests.support.uploads import EVENTS, WORDS, Held, code_of, events_of, post, serving, stream

pytestmark = pytest.mark.slow


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
    await until(lambda: not server.engine.slots_used)
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
