"""The access control before small handlers of our own: bodies are there before the handler, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from tests.support.gate import MAX_BYTES, door, doorkeeper


async def test_the_body_is_there_before_the_handler() -> None:
    async with door(doorkeeper()) as at:
        for body in (b"", b"x", b"x" * MAX_BYTES):
            assert (await at.ask("POST", "/api/offer", body))[0] == 200
            assert at.served[-1][1] == body


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_is_too_large(chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100

    async with door(doorkeeper()) as at:
        status, _, body = await at.ask("POST", "/api/offer", chunks() if chunked else b"x" * 5000)
        assert (status, body["error"]["code"]) == (413, "too_large")
        assert str(MAX_BYTES) in body["error"]["message"]
        assert not at.served


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_is_too_large_for_its_route(chunked: bool) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 100

    async with door(doorkeeper()) as at:
        for hundreds, wanted in ((5, 200), (6, 413), (50, 413)):
            data = chunks(hundreds) if chunked else b"x" * 100 * hundreds
            status, _, body = await at.ask("POST", "/small", data)
            assert status == wanted
        assert str(MAX_BYTES // 2) in body["error"]["message"]
        assert len(at.served) == 1


async def test_a_body_that_does_not_come() -> None:
    """Drop by drop or not at all: what counts is when all of it is here."""
    async with door(doorkeeper(request_timeout_s=0.2)) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(at.url.rsplit(":", 1)[1]))
        writer.write(b"POST /api/offer HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            body = json.loads(await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0])))
        dripping.cancel()
        writer.close()
        assert b" 408 " in head.splitlines()[0]
        assert b"connection: close" in head.lower()
        assert body["error"]["code"] == "request_timeout"
        assert body["error"]["retryable"] is True
        assert not at.served
