"""A pool in the test's own event loop, a node's end of the way to it, and engines that are in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from lab.waiting import until
from rtc_server.cluster.fleet import Fleet
from rtc_server.cluster.messages import PROTOCOL, Ask, FromPool, Roster, ToPool, decode_from_pool, encode
from rtc_server.cluster.policy import Terms
from rtc_server.cluster.pool import Launcher, Pool
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.sockets import Dealer
from tests.support.served import KEY


class RunningPool(Pool):
    """In a task of its own, until it is stopped."""

    def run_apart(self) -> None:
        self._task = asyncio.create_task(self.run(), name="pool")

    async def stop(self) -> None:
        """Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.close()


@contextlib.asynccontextmanager
async def pool(
    terms: Mapping[str, Terms] | None = None, launcher: Launcher | None = None, address: str = "127.0.0.1:0"
) -> AsyncIterator[RunningPool]:
    made = RunningPool(address, KEY, Fleet(terms or {}), launcher)
    made.run_apart()
    try:
        yield made
    finally:
        await made.stop()


class Node:
    """A media node's end, whose part the test plays. ``rosters``: all that it was told."""

    def __init__(self, address: str, key: ClusterKey = KEY) -> None:
        self.told: list[FromPool] = []
        self._dealer = Dealer(address, key.pool.public, key.node, "pool")

    @property
    def roster(self) -> Roster | None:
        return next((each for each in reversed(self.told) if isinstance(each, Roster)), None)

    @property
    def lives(self) -> list[str]:
        return [] if self.roster is None else [engine.life for engine in self.roster.engines]

    async def say(self, message: ToPool | bytes) -> None:
        """As soon as there is a connection."""
        await until(lambda: self.try_to_say(message), "a connection")

    def try_to_say(self, message: ToPool | bytes) -> bool:
        """Whether there is a connection to say it by."""
        return self._dealer.send(message if isinstance(message, bytes) else encode(message))

    async def ask(self, **waiting: int) -> None:
        await self.say(Ask(PROTOCOL, waiting))

    async def _read(self) -> None:
        while True:
            self.told.append(decode_from_pool(await self._dealer.receive()))

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, address: str, key: ClusterKey = KEY) -> AsyncIterator[Node]:
        node = cls(address, key)
        node._dealer.connect()
        reading = asyncio.create_task(node._read())
        try:
            yield node
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await node._dealer.close()
