"""A function in a process of its own: torch, its threads and its memory stay out of the process that measures."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, TypeVar

_LINE: Final = 120

Result = TypeVar("Result")


def apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """What ``function``, which has to be importable, returns there.

    Raises RuntimeError, with the kind of error and its first line, for whatever it raises, and when its process dies.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_plainly, function, arguments).result()


def _plainly(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    try:
        return function(*arguments)
    except Exception as error:  # the border of a process: not every exception can be sent through it
        first_line = str(error).partition("\n")[0]
        raise RuntimeError(f"{type(error).__name__}: {first_line[:_LINE]}") from None
