"""One address before two nodes: who answers what."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from lab.network.front import Front
from lab.servers import free_port

SECRET = "x" * 22
SMALL, LARGE = 1_000, 3_000_000


class TwoNodes:
    """``url``: of the front before them. ``busy``: names of those that answer 503."""

    def __init__(self) -> None:
        self.url = ""
        self.busy: set[str] = set()
        self._runners: dict[str, web.AppRunner] = {}

    async def listen(self, name: str, port: int) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if name in self.busy:
                return web.Response(status=503, text=name)
            length = len(await request.read())
            return web.json_response({"node": name, "path": request.raw_path, "bytes": length})

        async def socket(request: web.Request) -> web.StreamResponse:
            made = web.WebSocketResponse()
            await made.prepare(request)
            async for message in made:
                await made.send_str(f"{name}: {message.data}")
            return made

        app = web.Application(client_max_size=2 * LARGE)
        app.router.add_get("/socket", socket)
        app.router.add_route("*", "/{path:.*}", answer)
        runner = self._runners[name] = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    async def end(self, name: str) -> None:
        """Idempotent."""
        if name in self._runners:
            await self._runners.pop(name).cleanup()


@pytest.fixture
async def two() -> AsyncIterator[TwoNodes]:
    made = TwoNodes()
    ports = {name: free_port() for name in "ab"}
    async with contextlib.AsyncExitStack() as stack:
        for name, port in ports.items():
            await made.listen(name, port)
            stack.push_async_callback(made.end, name)
        front = Front({name: f"127.0.0.1:{port}" for name, port in ports.items()})
        made.url = f"http://127.0.0.1:{await stack.enter_async_context(front.listening('127.0.0.1', 0))}"
        yield made


async def asked(two: TwoNodes, path: str, method: str = "GET", size: int = 0) -> str:
    """Which node has answered; the error's status if none has."""
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, two.url + path, data=b"x" * size if size else None) as answer,
    ):
        if answer.status != 200:
            return str(answer.status)
        told = await answer.json()
        assert (told["path"], told["bytes"]) == (path, size)
        return str(told["node"])


@pytest.mark.parametrize(
    "path",
    ["/api/sessions/{}-0-{}", "/api/sessions/{}-1-{}/events?a=b", "/whip/rtc_{}-0-{}", "/v1/x?call_id=rtc_{}-12-{}"],
)
async def test_what_is_about_a_session_goes_to_the_node_that_has_it(two: TwoNodes, path: str) -> None:
    for node in ("a", "b", "b", "a"):
        assert await asked(two, path.format(node, SECRET)) == node


async def test_any_other_request_goes_to_each_in_turn_and_past_the_one_that_is_gone_or_busy(two: TwoNodes) -> None:
    assert {await asked(two, "/api/offer", "POST", SMALL) for _ in range(4)} == {"a", "b"}
    two.busy.add("a")
    assert {await asked(two, "/api/offer", "POST", SMALL) for _ in range(4)} == {"b"}
    two.busy.add("b")
    assert await asked(two, "/api/offer", "POST", SMALL) == "503"
    two.busy.clear()
    await two.end("b")
    assert {await asked(two, "/") for _ in range(4)} == {"a"}
    assert await asked(two, f"/api/sessions/b-0-{SECRET}") == "503", "no other one has it"
    await two.end("a")
    assert await asked(two, "/") == "503"


async def test_what_is_too_long_to_be_kept_goes_through_as_it_comes(two: TwoNodes) -> None:
    assert await asked(two, "/upload", "POST", LARGE) in {"a", "b"}
    two.busy |= {"a", "b"}
    assert await asked(two, "/upload", "POST", SMALL) == "503"


async def test_a_websocket_goes_through(two: TwoNodes) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{two.url}/socket") as socket:
        for text in ("one", "two"):
            await socket.send_str(text)
            assert (await socket.receive_str()).endswith(f": {text}")
