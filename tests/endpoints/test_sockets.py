"""What every WebSocket endpoint does alike: how a client that sends without a pause shares the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import WSMessage, WSMsgType

from rtc_server.endpoints.sockets import Turn, receive_data

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
