"""An event loop whose clock jumps to the next thing that is due instead of waiting for it."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
START_S: Final = 1000.0


class _Selector(selectors.DefaultSelector):
    """Passes the time that the loop would sleep."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is due, and nothing will ever happen"
        if timeout > 0:
            self._advance(timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its time is virtual, and so is that of its sleeps, timers and timeouts. For code that waits for nothing from
    outside: no thread, no socket."""

    def __init__(self) -> None:
        self._virtual_s = START_S
        super().__init__(_Selector(self.stall))

    def time(self) -> float:
        return self._virtual_s

    def stall(self, seconds: float) -> None:
        """Let time pass in which nothing gets its turn, as when the loop is held up."""
        self._virtual_s += seconds


def run_in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that is run by such a loop."""

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        run_in_virtual_time(test(*arguments, **named))

    return run


def virtual_loop() -> VirtualTimeLoop:
    """The one that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


def now() -> float:
    return virtual_loop().time()
