"""Tasks that wait for other tasks: one of the two may be cancelled, and it is not the other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Outcome = TypeVar("_Outcome")


async def to_the_end(work: Coroutine[Any, Any, None], name: str) -> None:
    """Wait for ``work``, in a task of this ``name``; when cancelled meanwhile, wait all the same, and raise then."""
    task = asyncio.create_task(work, name=name)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def outcome_of(work: asyncio.Future[_Outcome], given_up: Exception) -> _Outcome:
    """What ``work`` of another owner returns or raises; ``given_up`` when its owner has cancelled it. It goes on when
    the caller is cancelled.

    ``await`` and ``asyncio.shield`` raise CancelledError in both cases. A caller takes that for its own cancellation:
    a request is dropped without an answer, and a close ends halfway.
    """
    await asyncio.wait({work})
    if work.cancelled():
        raise given_up
    return work.result()
