"""Work that goes to its end although the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def to_the_end(work: Coroutine[Any, Any, None], name: str) -> None:
    """Wait for ``work``, in a task of this ``name``; when cancelled meanwhile, wait all the same, and raise then."""
    task = asyncio.create_task(work, name=name)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
