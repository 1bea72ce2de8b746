"""A server whose event loop is late refuses newcomers before those who talk hear it, and takes them in again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import OfferRefused, VoiceClient
from tests.conftest import running_server
from tests.support.calls import assert_serves, get_json
from tests.support.leftovers import leaves_nothing

pytestmark = pytest.mark.alone

LATE_S = 0.2
"""More than other programs keep this machine's loop from its turn, again and again."""


@contextlib.asynccontextmanager
async def late_loop() -> AsyncIterator[None]:
    """Something in the loop takes too long, over and over."""

    async def hold_up() -> None:
        while True:
            time.sleep(1.5 * LATE_S)  # noqa: ASYNC251 - that is what goes wrong
            await asyncio.sleep(0.01)

    task = asyncio.create_task(hold_up(), name="hold-up")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server("--model", "echo", "--max-lag-ms", str(1000 * LATE_S)) as server:
        yield server


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def test_a_loop_that_is_late_takes_no_other_call_until_it_is_not(server: Server) -> None:
    """Who is in stays in."""
    url, window = url_of(server), server.lag.window
    async with leaves_nothing(server), VoiceClient(url) as client:
        await client.wait_for("connected")
        assert (await get_json(f"{url}/status"))[1]["loop"]["crowded"] is False
        async with late_loop():
            await until(lambda: window.crowded, "the loop's lag noticed", 60)
            with pytest.raises(OfferRefused) as refused:
                await VoiceClient(url).__aenter__()
            assert (refused.value.status, refused.value.code) == (503, "overloaded")
            assert refused.value.retry_after_s
            loop = (await get_json(f"{url}/status"))[1]["loop"]
            assert loop["crowded"] is True
            assert loop["lag_p95_ms"] > 1000 * LATE_S
        async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as response:
            text = await response.text()
        assert 'rtc_loop_lag_seconds{quantile="0.95"}' in text
        assert 'rtc_offers_refused_total{code="overloaded"} 1.0' in text
        await until(lambda: not window.crowded, "the loop in time again", 60)
        await assert_serves(url)
        assert not client.closed.is_set()


async def test_where_there_is_no_call_the_first_is_taken(server: Server) -> None:
    """Refusing it would help no other."""
    async with late_loop():
        await until(lambda: server.lag.window.crowded, "the loop's lag noticed", 60)
        async with VoiceClient(url_of(server)) as client:
            assert client.session
