"""What a media node knows of its pool's engines: the media node's end of the way to the pool.

It asks each second, and says how many clients wait. While the pool is away, what it said last holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from rtc_server.cluster.messages import EVERY_S, PROTOCOL, Ask, OtherProtocol, Peers, Roster, decode_from_pool, encode
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.sockets import Dealer

logger = logging.getLogger(__name__)

_AWAY_S: Final = 3.0
_CONNECT_S: Final = 0.05
"""Between tries to ask, while there is no connection."""


class Reader(Protocol):
    """One service's part of what there is to know."""

    @property
    def service(self) -> str: ...

    def on_roster(self, roster: Roster) -> None:
        """The pool has told which engines there are."""

    def waiting(self) -> int:
        """How many clients wait for a slot."""


class Directory:
    """At ``pool``, ``HOST:PORT``. Runs from the first :meth:`join` to the last :meth:`leave`."""

    def __init__(self, pool: str, key: ClusterKey, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._key = key
        self._clock = clock
        self._readers: list[Reader] = []
        self._heard_at = clock()
        self._away = False
        self._told_version = False
        self._task: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()
        self._process = self._url = ""
        self._peers = Peers(0, {})

    @property
    def secret(self) -> bytes:
        """What the media nodes of the cluster share, for what they pass on to each other."""
        return self._key.requests

    def announce(self, process: str, url: str) -> None:
        """This is the media process ``process``, ``NODE-WORKER``, which other nodes reach at ``url``. Without it this
        one is told of no other."""
        self._process, self._url = process, url

    def address_of(self, process: str) -> str | None:
        """Where another media process is; None for one that the pool has not heard of, or not for a while."""
        return self._peers.urls.get(process)

    @property
    def age_s(self) -> float:
        """How long ago the pool was heard; no matter what it said."""
        return self._clock() - self._heard_at

    @property
    def away(self) -> bool:
        return self.age_s > _AWAY_S

    def join(self, reader: Reader) -> None:
        self._readers.append(reader)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="pool-directory")

    def ask_soon(self) -> None:
        """More clients wait than before: the pool need not hear of it a second later."""
        self._soon.set()

    async def leave(self, reader: Reader) -> None:
        """Idempotent."""
        if reader in self._readers:
            self._readers.remove(reader)
        if not self._readers and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        dealer = Dealer(self._pool, self._key.pool.public, self._key.node, "pool")
        dealer.connect()
        reading = asyncio.create_task(self._read(dealer), name="pool-reader")
        try:
            while True:
                self._look()
                waiting = {reader.service: reader.waiting() for reader in self._readers}
                asked = dealer.send(encode(Ask(PROTOCOL, waiting, self._process, self._url, self._peers.edition)))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S if asked else _CONNECT_S):
                        await self._soon.wait()
                self._soon.clear()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await dealer.close()

    def _look(self) -> None:
        if self.away and not self._away:
            logger.warning("the pool at %s does not answer: the engines that are known go on", self._pool)
        elif self._away and not self.away:
            logger.warning("the pool at %s answers again", self._pool)
        self._away = self.away

    async def _read(self, dealer: Dealer) -> None:
        while True:
            try:
                message = decode_from_pool(await dealer.receive())
            except msgspec.DecodeError:
                logger.warning("a message of the pool at %s that is none was ignored", self._pool)
                continue
            match message:
                case Roster():
                    self._heard_at = self._clock()
                    self._peers = message.peers or self._peers
                    for reader in list(self._readers):
                        reader.on_roster(message)
                case OtherProtocol():
                    self._refused(message)

    def _refused(self, message: OtherProtocol) -> None:
        if not self._told_version:
            logger.error(
                "the pool at %s speaks version %d of the protocol, this server %d: install the same release",
                *(self._pool, message.protocol, PROTOCOL),
            )
        self._told_version = True
