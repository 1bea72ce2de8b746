"""Runs a command's work until it is done, or until a signal says to stop.

By a handler of the event loop: Python's own for SIGINT is not there in a program that a shell has started in the
background with ``&``, and there is none for SIGTERM and SIGHUP at all, which end a program in the middle of a file.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Result = TypeVar("_Result")


class StoppedError(Exception):
    """A signal came. ``status``: as a shell reports a program that it has ended."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(signal.Signals(number).name)


async def until_stopped(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Cancel ``work`` at the first signal, let it clean up, and raise StoppedError; further ones change nothing."""
    task = asyncio.create_task(work, name="command")
    loop, came = asyncio.get_running_loop(), list[int]()

    def on_signal(number: int) -> None:
        if not came:
            task.cancel()
        came.append(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        if came:
            raise StoppedError(came[0]) from None
        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
