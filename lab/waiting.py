"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_POLL_S: Final = 0.005


async def until(condition: Callable[[], object], what: str = "the condition", timeout_s: float = 20.0) -> None:
    """Let the event loop run until ``condition`` holds. Raises AssertionError that says what never came."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(_POLL_S)
