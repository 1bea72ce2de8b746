"""Connections that take their time, or are too many, or speak something else; and what is relied upon of aiohttp.

Each scenario runs on asyncio's loop and on uvloop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest
from aiohttp import web

from lab.waiting import until
from rtc_server.access.addresses import Proxies
from rtc_server.access.origins import Origins
from rtc_server.system.descriptors import Descriptors
from rtc_server.system.rate_limit import Buckets
from rtc_server.web.errors import errors_middleware
from rtc_server.web.gate import Access
from rtc_server.web.limits import Connection, ConnectionLimits, Connections, Entry
from rtc_server.web.routes import Policy, Routes, add_routes
from tests.web.conftest import Scenario

LIMITS = ConnectionLimits(head_s=0.3, idle_s=30.0, lingering_s=0.2, stalled_s=0.3, in_all=20, per_address=20)
GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
SOON_S = 10.0
LARGE = 64 * 1024 * 1024


@pytest.fixture(autouse=True)
def nothing_to_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, it is no fault of ours, and its address is not for the log."""
    caplog.set_level(logging.INFO)
    yield
    assert not [record for record in caplog.records if record.name != "asyncio" or record.levelno > logging.INFO]


def read_all(client: socket.socket) -> None:
    """Read until the other side has closed. Raises ConnectionResetError."""
    while client.recv(1024 * 1024):
        pass


class Served:
    """A server under these limits."""

    def __init__(self, connections: Connections, port: int) -> None:
        self.connections, self.port = connections, port
        self.handled = 0
        self.release = asyncio.Event()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def until_open(self, count: int) -> None:
        await until(lambda: len(self.connections) == count)


@contextlib.asynccontextmanager
async def serving(
    limits: ConnectionLimits = LIMITS, trusted: tuple[str, ...] = (), files: Descriptors | None = None
) -> AsyncIterator[Served]:
    async def quick(request: web.Request) -> web.Response:
        served.handled += 1
        return web.Response(body=await request.read())

    async def waits_for_nothing(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def waits(_: web.Request) -> web.Response:
        await served.release.wait()
        return web.Response(text="done")

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * LARGE)

    proxies = Proxies(trusted)
    access = Access(None, Origins(), proxies, Buckets(1000, 1000, 10), request_timeout_s=limits.head_s)
    app = web.Application(middlewares=[errors_middleware])
    access.install(app)
    routes = Routes()
    routes.add("*", "/x", Policy())(quick)
    routes.get("/waits", Policy())(waits)
    routes.get("/healthz", Policy(when_crowded=True))(waits_for_nothing)
    routes.get("/large", Policy())(large)
    add_routes(app, routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    assert runner.server is not None
    connections = Connections(runner.server, limits, proxies, files)
    listener = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    served = Served(connections, listener.sockets[0].getsockname()[1])
    try:
        yield served
        served.release.set()
    finally:
        listener.close()
        await runner.cleanup()
    await served.until_open(0)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head.split()[1]), await reader.readexactly(int(length.split(b":")[1]))


def code(body: bytes) -> str:
    found = json.loads(body)["error"]
    assert set(found) == {"code", "message", "retryable"}
    return str(found["code"])


async def assert_served(served: Served) -> None:
    reader, writer = await served.connect()
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    writer.close()


def test_requests_one_after_the_other(run: Callable[[Scenario], None]) -> None:
    """Nothing is cut short that is not slow: not one that waits between two requests for longer than a head may take,
    nor one whose answer takes that long."""

    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            for _ in range(2):
                writer.write(GET)
                assert (await answer(reader))[0] == 200
                await asyncio.sleep(LIMITS.head_s * 1.5)
            writer.write(b"GET /waits HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.sleep(LIMITS.head_s * 1.5)
            served.release.set()
            assert await answer(reader) == (200, b"done")
            writer.write(GET + GET)
            assert (await answer(reader))[0] == (await answer(reader))[0] == 200
            writer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("first", "more"),
    [(b"G", b"ET /x"), (GET[:-2], b"X: y"), (b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 9, b"X: y")],
    ids=["one", "nearly", "some"],
)
@pytest.mark.parametrize("before", [0, 1], ids=["a new one", "a used one"])
def test_a_head_that_does_not_come(run: Callable[[Scenario], None], first: bytes, more: bytes, before: int) -> None:
    """Drop by drop: what counts is its first byte. It is told, and then cut off."""

    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            for _ in range(before):
                writer.write(GET)
                assert (await answer(reader))[0] == 200

            async def drip() -> None:
                with contextlib.suppress(ConnectionError):
                    writer.write(first)
                    for byte in more.ljust(1000, b"y"):
                        await asyncio.sleep(0.02)
                        writer.write(bytes([byte]))

            dripping = asyncio.create_task(drip())
            status, body = await answer(reader)
            assert (status, code(body)) == (408, "request_timeout")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            dripping.cancel()
            assert served.handled == before
            await served.until_open(0)
            await assert_served(served)
            writer.close()

    run(scenario)


@pytest.mark.slow
def test_a_body_has_what_its_head_has_left_of_the_time(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with serving(replace(LIMITS, head_s=4.0)) as served:
            reader, writer = await served.connect()
            writer.write(b"POST /x HTTP/1.1\r\n")
            later_reader, later_writer = await served.connect()
            await asyncio.sleep(1.5)
            later_writer.write(b"POST /x HTTP/1.1\r\n")
            later = asyncio.create_task(answer(later_reader))
            await asyncio.sleep(1.5)
            writer.write(b"Host: x\r\nContent-Length: 9\r\n\r\n")
            status, body = await answer(reader)
            assert (status, code(body)) == (408, "request_timeout")
            assert not later.done(), "four seconds in all, not for each part: one that began later ends later"
            assert (await later)[0] == 408
            writer.close()
            later_writer.close()

    run(scenario)


def test_a_hundred_slow_ones_keep_nobody_out(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with serving(replace(LIMITS, in_all=200, per_address=200)) as served:
            slow = [await served.connect() for _ in range(100)]
            for _, writer in slow:
                writer.write(b"GET / HT")
            await assert_served(served)
            assert {(await answer(reader))[0] for reader, _ in slow} == {408}
            for _, writer in slow:
                writer.close()

    run(scenario)


def test_one_that_says_nothing_is_closed_at_last(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with serving(replace(LIMITS, idle_s=0.3)) as served:
            reader, writer = await served.connect()
            assert await reader.read() == b""
            writer.close()

    run(scenario)


def test_one_that_takes_nothing_of_its_answer_is_cut_off(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with serving() as served:
            client = socket.create_connection(("127.0.0.1", served.port))
            client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await served.until_open(1)
            await served.until_open(0)
            with client, pytest.raises(ConnectionResetError):  # the system's buffer is as empty as ours
                read_all(client)

    run(scenario)


@pytest.mark.slow
def test_one_that_takes_its_answer_slowly_gets_all_of_it(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than one may take nothing: what counts is that it goes on."""
    look, looks = Connection._expect_taking, 0

    def counted(connection: Connection) -> None:
        nonlocal looks
        looks += 1
        look(connection)

    monkeypatch.setattr(Connection, "_expect_taking", counted)

    async def scenario() -> None:
        async with serving(replace(LIMITS, stalled_s=1.5)) as served:
            reader, writer = await served.connect()
            writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(2):
                await reader.readexactly(LARGE // 8)
                before = looks
                await until(lambda before=before: looks > before)  # type: ignore[misc]
            await reader.readexactly(LARGE - LARGE // 4)
            writer.close()

    run(scenario)


@pytest.mark.parametrize("limits", [replace(LIMITS, in_all=3), replace(LIMITS, per_address=3)], ids=["all", "address"])
def test_too_many(run: Callable[[Scenario], None], limits: ConnectionLimits) -> None:
    """Those beyond are told so, but for who asks how the server is; one that ends makes room."""

    async def scenario() -> None:
        async with serving(limits) as served:
            first = [await served.connect() for _ in range(3)]
            await served.until_open(3)
            for _ in range(5):
                reader, writer = await served.connect()
                writer.write(GET)
                status, body = await answer(reader)
                assert (status, code(body)) == (503, "too_many_connections")
                assert await reader.read() == b"", "and closed"
                writer.close()
                reader, writer = await served.connect()
                writer.write(GET.replace(b"/x", b"/healthz"))
                assert (await answer(reader))[0] == 200
                assert await reader.read() == b""
                writer.close()
            assert served.handled == 0
            for reader, writer in first:
                writer.write(GET)
                assert (await answer(reader))[0] == 200
            first[0][1].close()
            await served.until_open(2)
            await assert_served(served)
            for _, writer in first:
                writer.close()

    run(scenario)


@pytest.mark.slow
def test_the_surplus_that_says_nothing_keeps_nobody_from_asking(run: Callable[[Scenario], None]) -> None:
    """Forty silent ones beyond the bound: few stay, and the next that asks is told."""

    async def scenario() -> None:
        async with serving(replace(LIMITS, in_all=2)) as served:
            silent = [await served.connect() for _ in range(42)]
            for path, status in ((b"/healthz", 200), (b"/x", 503)):
                reader, writer = await served.connect()
                writer.write(GET.replace(b"/x", path))
                assert (await answer(reader))[0] == status
                writer.close()
            for reader, writer in silent[2:]:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b"", "none stays for long"
                writer.close()
            for reader, writer in silent[:2]:
                writer.write(GET)
                assert (await answer(reader))[0] == 200
                writer.close()

    run(scenario)


def test_few_files_left_are_for_the_media(run: Callable[[Scenario], None], caplog: pytest.LogCaptureFixture) -> None:
    """Then HTTP is refused, with a word; and without one, when there is nothing left to say it by."""

    async def scenario() -> None:
        used = 0
        files = Descriptors(100, count=lambda: used)
        async with serving(LIMITS, files=files) as served:
            await assert_served(served)
            for used, expected in ((90, 503), (97, None), (10, 200)):
                await until(lambda used=used: files.left() == 100 - used)
                reader, writer = await served.connect()
                if expected is None:
                    with contextlib.suppress(ConnectionError):
                        assert await reader.read() == b""
                else:
                    writer.write(GET)
                    assert (await answer(reader))[0] == expected
                writer.close()
                await served.until_open(0)

    run(scenario)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "kept for the media" in warnings[0].getMessage()
    caplog.clear()


def test_a_trusted_proxy_has_as_many_as_there_are(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with serving(replace(LIMITS, per_address=1), trusted=("127.0.0.0/8",)) as served:
            many = [await served.connect() for _ in range(10)]
            for reader, writer in many:
                writer.write(GET)
                assert (await answer(reader))[0] == 200
                writer.close()

    run(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /x HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(200)) + b"\r\n",
        b"y" * 100_000,
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"GET /x HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=[
        "header",
        "path",
        "headers",
        "names",
        "line",
        "text",
        "tls",
        "version",
        "length",
        "framing",
        "name",
        "nul",
        "h2",
    ],
)
def test_what_is_not_http_or_too_much_of_it(run: Callable[[Scenario], None], sent: bytes) -> None:
    """A 4xx in our words, and the end of the connection."""

    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            with contextlib.suppress(ConnectionError):
                writer.write(sent)
                await writer.drain()
            status, body = await answer(reader)
            assert (status, code(body)) == (400, "bad_request")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert served.handled == 0
            await assert_served(served)
            writer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (400, "bad_request")),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n", (400, "bad_request")),
        (b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnotpacked", (415, "unsupported_media_type")),
        (b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400, "bad_request")),
        (b"Content-Length: 99999999\r\n\r\nabc", (413, "too_large")),
    ],
    ids=["chunk", "chunk's end", "packed", "packed chunk", "length"],
)
def test_a_body_that_is_not_what_it_should_be(
    run: Callable[[Scenario], None], sent: bytes, expected: tuple[int, str]
) -> None:
    """Also where its rest is thrown away only after the answer."""

    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\n" + sent)
            status, body = await answer(reader)
            assert (status, code(body)) == expected
            assert served.handled == 0
            writer.close()
            await served.until_open(0)

    run(scenario)


def test_a_client_that_leaves_in_the_middle(run: Callable[[Scenario], None]) -> None:
    async def scenario() -> None:
        async with serving() as served:
            for sent in (b"", b"GET", b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", GET[:-2]):
                _, writer = await served.connect()
                writer.write(sent)
                await writer.drain()
                writer.close()
                await served.until_open(0)
            await assert_served(served)

    run(scenario)


def test_how_many_of_ipv6_are_one_address() -> None:
    connections = Connections.__new__(Connections)
    Connections.__init__(connections, None, replace(LIMITS, per_address=2), Proxies())  # type: ignore[arg-type]
    one = Entry("2001:db8::/64", surplus=False)
    assert connections.enter("2001:db8::1") == connections.enter("2001:db8::2") == one
    assert connections.enter("2001:db8::3") == Entry("2001:db8::/64", surplus=True)
    assert connections.enter("2001:db8:0:1::1") == Entry("2001:db8:0:1::/64", surplus=False)
    connections.leave(one)
    assert connections.enter("2001:db8::3") == one
    assert len(connections) == 3


def test_half_of_all_files_are_for_the_media() -> None:
    limits = ConnectionLimits.of_this_process()
    assert 0 < limits.per_address < limits.in_all <= 4096


def test_what_is_relied_upon_of_aiohttp() -> None:
    """That its request handler is public, calls these methods of its own, and takes these settings."""
    assert web.RequestHandler in Connection.__mro__
    assert "RequestHandler" in web.__all__
    settings = inspect.signature(web.RequestHandler).parameters
    assert {"loop", "access_log", "keepalive_timeout", "lingering_time", "max_headers", "auto_decompress"} <= set(
        settings
    )
    assert settings["max_headers"].default == 128
    assert settings["max_line_size"].default == settings["max_field_size"].default == 8190
    overridden = {name for name, value in vars(Connection).items() if inspect.isfunction(value)}
    own = {"__init__", "request_began", "request_ended", "cut_off", "_expect_taking", "_on_stall", "_on_late_head"}
    assert {name for name in overridden if not hasattr(web.RequestHandler, name)} == own - {"__init__"}
    assert not {name for name in overridden - own if name.startswith("_")}, "nothing private is overridden"
    assert list(inspect.signature(web.RequestHandler.handle_error).parameters) == [
        "self",
        "request",
        "status",
        "exc",
        "message",
    ]
    assert isinstance(web.RequestHandler.connected, property)
