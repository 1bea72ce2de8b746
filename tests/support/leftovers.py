"""What a conversation must not leave behind in a server of the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import AsyncIterator

import psutil

from lab.waiting import until
from rtc_server.app import Server


def _open_udp() -> int:
    return len(_udp_addresses())


def _udp_addresses() -> list[str]:
    return [f"{one.laddr} {one.raddr}" for one in psutil.Process().net_connections(kind="udp")]


def _decoder_threads() -> int:
    return sum(thread.name.endswith("-decoder") for thread in threading.enumerate())


def _slots_taken(server: Server) -> int:
    """Slots in the hands of the media plane, by the leases that it holds."""
    return sum(engine.slots_used + engine.slots_asked_for for engine in server.engines.values())


def _tasks() -> Counter[str]:
    """The running tasks by what they run."""
    return Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())  # type: ignore[union-attr]


@contextlib.asynccontextmanager
async def leaves_nothing(server: Server, timeout_s: float = 45.0) -> AsyncIterator[None]:
    """What happens inside leaves no session, slot, task, decoder thread or socket."""
    tasks = _tasks()
    before = _open_udp(), _decoder_threads(), _slots_taken(server), len(server.registry)
    addresses = _udp_addresses()
    yield

    def more() -> Counter[str]:
        return _tasks() - tasks

    def now() -> tuple[int, int, int, int]:
        return _open_udp(), _decoder_threads(), _slots_taken(server), len(server.registry)

    def is_given_back() -> bool:
        """What was open before may have been closed meanwhile: it was of another conversation, on its way out."""
        return not more() and all(left <= had for left, had in zip(now(), before, strict=True))

    try:
        await until(is_given_back, "everything given back", timeout_s)
    except AssertionError as error:
        raise AssertionError(
            f"left behind after {timeout_s} s: (udp sockets, decoder threads, slots, sessions) {before} -> {now()}, "
            f"tasks {more()}, new sockets {sorted({*_udp_addresses()} - {*addresses})}"
        ) from error
