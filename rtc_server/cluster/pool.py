"""The pool: hears engines and media nodes, starts and stops engines, and tells nodes which there are.

One process for a whole cluster, and none that has to live: conversations go on without it, and one that is started
again knows all that it has to know within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

import msgspec
import zmq
import zmq.asyncio

from rtc_server.cluster.fleet import Fleet
from rtc_server.cluster.messages import (
    PROTOCOL,
    Ask,
    Beat,
    FromPool,
    Gone,
    OtherProtocol,
    Roster,
    decode_to_pool,
    encode,
)
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.sockets import GuardedRouter

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.1
"""How often to look whether something follows from what was heard: what changes is told within so long."""
_AT_A_TIME: Final = 100


class Launcher(Protocol):
    """Starts engines on machines, and ends them. No call blocks or raises: what fails is logged and tried again, and
    an engine that is not there any more is missing in :meth:`names`."""

    def names(self, service: str) -> Collection[str]:
        """Of the engines that were started here and have not ended."""

    def start(self, service: str) -> str:
        """Start an engine; returns its name, which it tells with each beat."""

    def stop(self, name: str) -> None:
        """Have it drain, and end."""

    def discard(self, name: str) -> None:
        """End it by force."""


class Pool:
    """Listens at ``address``. ``launcher``: None for a pool whose engines are all started by others. ``clock``: in
    seconds; does not go back. Raises ConfigError where it cannot listen."""

    def __init__(
        self,
        address: str,
        key: ClusterKey,
        fleet: Fleet,
        launcher: Launcher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._launcher = launcher
        self._clock = clock
        self._context = zmq.Context()
        let_in = [key.engine.public, key.node.public]
        self._door = GuardedRouter(self._context, address, key.pool, let_in, zmq.asyncio.Socket)
        self._router: Any = self._door.socket
        self._told: object = None
        self._closed = False
        self.address = self._door.address

    async def run(self) -> None:
        """Until cancelled; closes what it has."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(), name="pool-hears")
                group.create_task(self._look(), name="pool-looks")
        finally:
            await self.close()

    async def close(self) -> None:
        """Nothing is heard any more. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._router.close()
        self._door.close()
        await asyncio.to_thread(self._context.term)

    async def _hear(self) -> None:
        while True:
            for _ in range(_AT_A_TIME):
                who, *parts = await self._router.recv_multipart()
                self._take(who, parts)
            await asyncio.sleep(0)

    def _take(self, who: bytes, parts: list[bytes]) -> None:
        try:
            (raw,) = parts
            message = decode_to_pool(raw)
        except (ValueError, msgspec.DecodeError):
            logger.warning("a message that is none was ignored")
            return
        if isinstance(message, Beat | Ask) and message.protocol != PROTOCOL:
            self._say(who, OtherProtocol(PROTOCOL))
            return
        now = self._clock()
        match message:
            case Beat():
                self._fleet.heard(message, now)
            case Gone():
                self._fleet.gone(message.life, now)
            case Ask():
                if self._fleet.asked(who, message.waiting, now, message.process, message.url):
                    self._say(who, self._fleet.roster(now, message.known if message.url else None))
                else:
                    logger.warning("too many media nodes: one was not let in")

    def _say(self, who: bytes, message: FromPool) -> None:
        # It is tried at once: one that is gone, or does not read, loses it.
        with contextlib.suppress(zmq.ZMQError):
            sent: asyncio.Future[Any] = self._router.send_multipart((who, encode(message)), zmq.NOBLOCK)
            sent.exception()

    async def _look(self) -> None:
        while True:
            now = self._clock()
            self._fleet.forget(now)
            if self._launcher is not None:
                self._act(self._launcher, now)
            self._tell_changes(now)
            await asyncio.sleep(_LOOK_S)

    def _act(self, launcher: Launcher, now: float) -> None:
        for service in self._fleet.own_services:
            self._fleet.launched(service, launcher.names(service), now)
        for service, decision in self._fleet.decide(now).items():
            for _ in range(decision.start):
                logger.info("starting an engine of %s: %s", service, launcher.start(service))
            for name in decision.stop:
                logger.info("stopping an engine of %s that is not used: %s", service, name)
                launcher.stop(name)
                self._fleet.stopping(name)
            self._fleet.launched(service, launcher.names(service), now)
        for name in self._fleet.lost(now):
            logger.warning("an engine has been silent for too long: %s is ended", name)
            launcher.discard(name)

    def _tell_changes(self, now: float) -> None:
        roster = self._fleet.roster(now)
        shape = _shape(roster)
        if shape == self._told:
            return
        self._told = shape
        for node in list(self._fleet.nodes):
            self._say(node, roster)


def _shape(roster: Roster) -> object:
    """What has to be told at once when it changes."""
    return roster.engines, roster.gone, [outlook.starts_in_s is None for outlook in roster.outlooks]
