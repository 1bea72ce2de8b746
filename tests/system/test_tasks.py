"""Work that goes to its end."""

from __future__ import annotations

import asyncio

import pytest

from rtc_server.system.tasks import to_the_end


async def test_work_goes_to_its_end_though_its_waiter_is_cancelled() -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await may_end.wait()
        ended.set()

    waiter = asyncio.create_task(to_the_end(work(), "work"), name="waiter")
    await begun.wait()
    waiter.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert ended.is_set()


async def test_what_work_raises_is_raised() -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await to_the_end(work(), "work")
