"""What every WebSocket endpoint does alike: how a client that sends without a pause shares the event loop, and how one
that does not read is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from lab.waiting import until
from rtc_server.endpoints.sockets import Turn, make_socket, receive_data, say_goodbye

MESSAGES = 500


class Flood:
    """A socket on which pings have come without end, and one message behind them."""

    def __init__(self, pings: int, work: Callable[[], None]) -> None:
        self.answered = 0
        self._pings = pings
        self._work = work

    async def receive(self, _: float | None) -> WSMessage:
        self._work()
        if self.answered < self._pings:
            return WSMessage(WSMsgType.PING, b"?", None)
        return WSMessage(WSMsgType.TEXT, "!", None)

    async def pong(self, data: bytes) -> None:
        assert data == b"?"
        self.answered += 1


async def test_pings_are_answered_between_the_turns_of_others() -> None:
    now = 0.0
    others = 0

    def work() -> None:
        nonlocal now
        now += 0.0001

    async def live() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    living = asyncio.create_task(live())
    flood: Any = Flood(MESSAGES, work)
    message = await receive_data(flood, Turn(lambda: now))
    living.cancel()
    assert (message.data, flood.answered) == ("!", MESSAGES)
    assert 25 <= others <= 75


@pytest.mark.parametrize(("message_s", "rounds"), [(0.0001, (25, 75)), (0.005, (MESSAGES, MESSAGES + 1))])
async def test_a_client_gives_way_by_the_time_it_takes(message_s: float, rounds: tuple[int, int]) -> None:
    """Small messages are taken many in a round of the loop, so that a slow loop leaves none behind; after each large
    one others have their turn."""
    now = 0.0
    others = 0

    async def work() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    turn = Turn(lambda: now)
    for _ in range(MESSAGES):
        now += message_s
        await turn.pass_on()
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    least, most = rounds
    assert least <= others <= most


@pytest.mark.parametrize("answer_s", [0.05, 5.0], ids=["aiohttp's limit ends first", "ours ends first"])
async def test_nothing_is_kept_for_a_client_that_does_not_read(answer_s: float) -> None:
    """Its connection ends with its handler, although what it ought to read lies in the buffer."""
    requests: list[web.Request] = []
    ended = asyncio.Event()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        requests.append(request)
        response = make_socket(request, 100, answer_s)
        await response.prepare(request)
        assert request.transport is not None
        while not request.transport.get_write_buffer_size():  # as much as the system takes
            await response.send_bytes(bytes(1000))
        await say_goodbye(request, response, 5.0 if answer_s < 1 else 0.05, WSCloseCode.OK, "")
        ended.set()
        return response

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=1)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        async with asyncio.timeout(20):
            await ended.wait()
            await until(lambda: requests[0].transport is None, "the end of the connection")
        assert not reader.at_eof(), "it has not read to the end"
        writer.transport.abort()
    finally:
        await runner.cleanup()
