"""An engine tells its pool of itself: the engine's end of the way to the pool.

In a thread of its own, with an event loop. What it tells it has from the engine's step loop, which it asks each
second: an engine that hangs is silent. A pool that is away costs the engine nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
import time
from typing import Final

import msgspec

from rtc_server.cluster.messages import EVERY_S, PROTOCOL, Beat, Gone, OtherProtocol, decode_from_pool, encode
from rtc_server.cluster.policy import Phase
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.messages import Ping, Pong
from rtc_server.engine.model import ModelInfo
from rtc_server.engine.served import ServedPort
from rtc_server.engine.sockets import Dealer

logger = logging.getLogger(__name__)

_ANY: Final = ("0.0.0.0", "[::]", "::", "*")  # noqa: S104 - to be replaced
_NAME_BYTES: Final = 8


def split_name(name: str) -> tuple[str, str]:
    """``--engine-name``, as the name and the life that it stands for: NAME/LIFE, or NAME, which has one life."""
    own = name or secrets.token_hex(_NAME_BYTES)
    return own.partition("/")[0], own


def reached_at(listen: str, pool: str) -> str:
    """The address by which others reach what listens at ``listen``: this machine's own on the way to ``pool``, if it
    listens at all of them. Raises OSError if there is no way."""
    host, _, port = listen.rpartition(":")
    if host not in _ANY:
        return listen
    pool_host, _, pool_port = pool.rpartition(":")
    found = socket.getaddrinfo(pool_host.strip("[]"), int(pool_port), type=socket.SOCK_DGRAM)
    family, kind, protocol, _, target = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(target)  # sends nothing
        own = probe.getsockname()[0]
    return f"[{own}]:{port}" if family == socket.AF_INET6 else f"{own}:{port}"


def slots_that_count(slots: int, pong: Pong) -> int:
    """Of so many, those that are used or may be: fewer where conversations share memory, and it is short. What the pool
    starts for those who find none, it starts by this."""
    return slots if pong.pages is None else max(1, min(slots, pong.elsewhere + pong.pages.newcomers))


class Announcer:
    """Of the engine behind ``port``, of ``service``, to the pool at ``pool``. ``name``: as for :func:`split_name`."""

    def __init__(self, port: ServedPort, key: ClusterKey, service: str, pool: str, name: str = "") -> None:
        self._port = port
        self._key = key
        self._service = service
        self._pool = pool
        self._name, self._life = split_name(name)
        self._began = time.monotonic()
        self._load_s = 0.0
        self._all_slots = 0
        self._slots = 0
        self._used = 0
        self._idle_since = time.monotonic()
        self._told_version = False
        self._loop = asyncio.new_event_loop()
        self._ended = False
        self._wake, self._answered = asyncio.Event(), asyncio.Event()
        port.on_pong = self._on_pong
        self._thread = threading.Thread(target=self._run, name="engine-announcer", daemon=True)
        self._thread.start()

    def loaded(self, info: ModelInfo) -> None:
        """The model is there; in the thread that steps."""
        self._load_s = time.monotonic() - self._began
        self._idle_since = time.monotonic()
        self._slots = self._all_slots = info.slots
        self._soon(self._wake)

    def close(self) -> None:
        """Say that this life is over."""
        self._ended = True
        self._soon(self._wake)
        self._soon(self._answered)
        self._thread.join()

    def _soon(self, event: asyncio.Event) -> None:
        """Set it from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(event.set)

    def _on_pong(self, pong: Pong) -> None:
        if pong.elsewhere:
            self._idle_since = time.monotonic()
        self._used = pong.elsewhere
        self._slots = slots_that_count(self._all_slots, pong)
        self._soon(self._answered)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._announce())
        finally:
            self._loop.close()

    async def _announce(self) -> None:
        dealer = Dealer(self._pool, self._key.pool.public, self._key.engine, "pool")
        dealer.connect()
        reading = asyncio.create_task(self._read(dealer), name="pool-reader")
        try:
            while not self._ended:
                told = not await self._asked() or self._tell(dealer)
                await _until(self._wake, EVERY_S if told else EVERY_S / 10)
            dealer.send(encode(Gone(self._life)))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await dealer.close()

    async def _asked(self) -> bool:
        """Ask the engine how many slots are in use; False if it does not answer. One that loads has nothing to say."""
        self._answered.clear()
        return not self._slots or (self._port.tell(Ping()) and await _until(self._answered, EVERY_S))

    def _tell(self, dealer: Dealer) -> bool:
        """Whether the pool was told, or there is no way to it."""
        phase = Phase.STARTING if not self._slots else Phase.DRAINING if self._port.draining else Phase.READY
        try:
            address = reached_at(self._port.address, self._pool)
        except OSError as error:
            logger.debug("no way to the pool: %s", error)
            return True
        idle_s = 0.0 if self._used else time.monotonic() - self._idle_since
        names = (self._name, self._life, self._service, address)
        return dealer.send(encode(Beat(PROTOCOL, *names, phase, self._slots, self._used, idle_s, self._load_s)))

    async def _read(self, dealer: Dealer) -> None:
        while True:
            with contextlib.suppress(msgspec.DecodeError):
                message = decode_from_pool(await dealer.receive())
                if isinstance(message, OtherProtocol) and not self._told_version:
                    self._told_version = True
                    logger.error(
                        "the pool at %s speaks version %d of the protocol, this engine %d: install the same release",
                        *(self._pool, message.protocol, PROTOCOL),
                    )


async def _until(event: asyncio.Event, seconds: float) -> bool:
    """Wait for it, but not for longer; whether it has come. It is cleared."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
