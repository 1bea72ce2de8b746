"""TLS handshakes: what they are followed by, and strangers who begin many and end none.

Each scenario runs on asyncio's loop and on uvloop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiohttp import web

from lab.waiting import until
from rtc_server.access.addresses import Proxies
from rtc_server.system.descriptors import Descriptors
from rtc_server.web.handshakes import Handshakes
from rtc_server.web.limits import ConnectionLimits, Connections
from rtc_server.web.self_signed import keep_self_signed
from tests.web.conftest import Scenario

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = ConnectionLimits(in_all=20, per_address=4)
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""The beginning of a client's first message."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    chain = keep_self_signed(tmp_path_factory.mktemp("certificate"), ["localhost"], [], datetime.now(UTC))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(chain)
    return made


class Secured:
    def __init__(self, connections: Connections, handshakes: Handshakes, port: int) -> None:
        self.connections, self.handshakes, self.port = connections, handshakes, port

    async def plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self) -> bytes:
        """A status line, by HTTPS."""
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=trusting)
        try:
            writer.write(GET)
            return await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def secured(
    context: ssl.SSLContext, limits: ConnectionLimits = LIMITS, timeout_s: float = 10.0
) -> AsyncIterator[Secured]:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    assert runner.server is not None
    connections = Connections(runner.server, limits, Proxies(), Descriptors(most=1024))
    listening = socket.create_server(("127.0.0.1", 0))
    handshakes = Handshakes(listening, connections, context, timeout_s)
    try:
        yield Secured(connections, handshakes, listening.getsockname()[1])
    finally:
        await handshakes.close()
        await runner.cleanup()
    await until(lambda: len(connections) == 0)


def test_what_is_asked_with_the_last_of_the_handshake_is_answered(
    run: Callable[[Scenario], None], context: ssl.SSLContext
) -> None:
    async def scenario() -> None:
        async with secured(context) as server:
            for _ in range(20):
                assert await server.ask() == b"HTTP/1.1 200 OK\r\n"
            await until(lambda: len(server.connections) == 0)

    run(scenario)


@pytest.mark.parametrize("sent", [b"", HELLO], ids=["nothing", "a beginning"])
def test_one_that_does_not_end_takes_a_place_of_its_address_and_no_other(
    run: Callable[[Scenario], None], context: ssl.SSLContext, sent: bytes
) -> None:
    async def scenario() -> None:
        async with secured(context) as server:
            writers = [(await server.plain())[1] for _ in range(LIMITS.per_address)]
            for writer in writers:
                writer.write(sent)
            await until(lambda: len(server.handshakes) == LIMITS.per_address)
            assert len(server.connections) == LIMITS.per_address
            crowd = [(await server.plain())[1] for _ in range(3 * server.connections.surplus_places)]
            most = LIMITS.per_address + server.connections.surplus_places
            await until(lambda: len(server.handshakes) == most)
            assert len(server.connections) == LIMITS.per_address
            for writer in (*writers, *crowd):
                writer.close()
            await until(lambda: len(server.handshakes) == 0)
            assert await server.ask() == b"HTTP/1.1 200 OK\r\n"

    run(scenario)


def test_one_that_is_late_ends(run: Callable[[Scenario], None], context: ssl.SSLContext) -> None:
    async def scenario() -> None:
        async with secured(context, timeout_s=0.2) as server:
            reader, writer = await server.plain()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            await until(lambda: len(server.connections) == 0)
            writer.close()

    run(scenario)


@pytest.mark.parametrize("sent", [GET, b"\x16\x03\x01\xff\xff" + bytes(70_000), HELLO, b""])
def test_what_is_no_handshake_ends_and_is_no_line_in_the_log(
    run: Callable[[Scenario], None], context: ssl.SSLContext, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with secured(context) as server:
            reader, writer = await server.plain()
            with contextlib.suppress(ConnectionError):
                writer.write(sent)
                await writer.drain()
                writer.write_eof()
                await reader.read()
            writer.close()
            await until(lambda: len(server.connections) == 0 and len(server.handshakes) == 0)
            assert await server.ask() == b"HTTP/1.1 200 OK\r\n"

    run(scenario)
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_a_server_that_stops_waits_for_none(run: Callable[[Scenario], None], context: ssl.SSLContext) -> None:
    async def scenario() -> None:
        async with secured(context, replace(LIMITS, per_address=8)) as server:
            writers = [(await server.plain())[1] for _ in range(8)]
            await until(lambda: len(server.handshakes) == len(writers))
        assert len(server.handshakes) == 0
        for writer in writers:
            writer.close()

    run(scenario)
