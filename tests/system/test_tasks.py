"""Work that goes to its end, and what becomes of those who wait for a task that another cancels."""

from __future__ import annotations

import asyncio

import pytest

from rtc_server.system.tasks import outcome_of, to_the_end


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


async def test_a_task_that_its_owner_cancels_cancels_no_one_who_waits_for_it() -> None:
    work = asyncio.create_task(asyncio.Event().wait(), name="work")
    waiter = asyncio.create_task(outcome_of(work, ValueError("given up")), name="waiter")
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(ValueError, match="given up"):
        await waiter


async def test_one_who_waits_and_is_cancelled_leaves_the_work_alone() -> None:
    may_end = asyncio.Event()
    work = asyncio.create_task(may_end.wait(), name="work")
    waiter = asyncio.create_task(outcome_of(work, ValueError()), name="waiter")
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    may_end.set()
    assert await outcome_of(work, ValueError()) is True
