"""A WebSocket that another process of the server has: what goes through is as at that process itself."""

from __future__ import annotations

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from rtc_server.web.passing import client_by, pass_on


async def test_a_socket_that_is_passed_on_is_not_packed() -> None:
    """Noise does not get smaller, and of 16 KiB a client could make 16 MiB here, on the loop of everyone's media."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    async def near(request: web.Request) -> web.StreamResponse:
        answered = await pass_on(request, client, str(there.make_url("")).rstrip("/"), "192.0.2.1")
        assert answered is not None
        return answered

    far_app, near_app = web.Application(), web.Application()
    far_app.router.add_get("/chat", echo)
    near_app.router.add_get("/chat", near)
    async with (
        TestServer(far_app) as there,
        TestServer(near_app) as here,
        client_by(aiohttp.TCPConnector()) as client,
        aiohttp.ClientSession() as http,
        http.ws_connect(here.make_url("/chat"), compress=15) as socket,
    ):
        assert socket.compress == 0
        await socket.send_bytes(b"hello")
        assert (await socket.receive()).data == b"hello"
