"""What every WebSocket endpoint does alike: how a client that sends without a pause shares the event loop."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from rtc_server.endpoints.sockets import Turn

MESSAGES = 500


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
