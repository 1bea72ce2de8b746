"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

_POLL_S: Final = 0.005
_STALL_S: Final = 0.05
"""A look that comes later than this is counted as if it had come then."""


async def until(condition: Callable[[], object], what: str = "the condition", timeout_s: float = 20.0) -> None:
    """Let the event loop run until ``condition`` holds. Raises AssertionError that says what never came.

    ``timeout_s`` is of a loop that turns: what a machine with other work gives to that is no time of the test's.
    """
    waited_s, looked = 0.0, time.monotonic()
    while not condition():
        if waited_s > timeout_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(_POLL_S)
        now = time.monotonic()
        waited_s += min(now - looked, _STALL_S)
        looked = now


async def until_told(
    ask: Callable[[], Awaitable[object]], what: str = "the answer", timeout_s: float = 60.0, every_s: float = 0.05
) -> None:
    """Ask another process again and again, until what it says is true. Raises AssertionError as :func:`until` does."""
    deadline = time.monotonic() + timeout_s
    while not await ask():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(every_s)
