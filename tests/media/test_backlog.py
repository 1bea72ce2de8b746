"""Audio that waits: in order, complete, and small however it is cut."""

from __future__ import annotations

import asyncio
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.media.backlog import Backlog


def counted(samples: int, first: int = 0) -> FloatArray:
    return np.arange(first, first + samples, dtype=np.float32)


async def drained(backlog: Backlog) -> FloatArray:
    blocks = [np.zeros(0, np.float32)]
    while backlog.samples:
        blocks.append(await backlog.pop())
    return np.concatenate(blocks)


@given(st.lists(st.integers(0, 60_000), max_size=12))
def test_what_goes_in_comes_out(sizes: list[int]) -> None:
    async def scenario() -> None:
        backlog, first = Backlog(), 0
        for size in sizes:
            backlog.push(counted(size, first))
            first += size
        assert backlog.samples == first
        assert np.array_equal(await drained(backlog), counted(first))
        assert backlog.samples == 0

    asyncio.run(scenario())


async def test_what_is_taken_is_not_touched_by_what_comes() -> None:
    backlog = Backlog()
    backlog.push(counted(10))
    block = await backlog.pop()
    backlog.push(counted(10, 100))
    assert np.array_equal(block, counted(10))
    assert np.array_equal(await drained(backlog), counted(10, 100))


async def test_it_is_waited_for() -> None:
    backlog = Backlog()
    waiting = asyncio.create_task(backlog.pop())
    backlog.push(counted(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    backlog.push(counted(3))
    assert np.array_equal(await waiting, counted(3))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await backlog.pop()


async def test_single_samples_take_no_more_than_long_pieces() -> None:
    """Ten seconds, a sample at a time: four bytes each, and a block's worth."""
    backlog, one = Backlog(), np.zeros(1, np.float32)
    tracemalloc.start()
    try:
        for _ in range(10 * MODEL_RATE_HZ):
            backlog.push(one)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 12 * MODEL_RATE_HZ * 4
