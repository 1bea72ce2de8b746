"""An engine on another machine: the media node's end of the way to it, over ZeroMQ on TCP."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.link import OnExit, OnMessage
from rtc_server.engine.messages import (
    PROTOCOL,
    Goodbye,
    Hello,
    LoadFailed,
    OtherVersion,
    Ready,
    Stranger,
    ToEngine,
    decode_from_engine,
    encode,
)
from rtc_server.engine.sockets import Dealer

logger = logging.getLogger(__name__)

_FIRST_GREETING_S: Final = 0.02
_GREET_S: Final = 0.5
"""Between greetings: at first the one is too early for the connection, and later the other."""
_PATIENCE_S: Final = 5.0
"""Without an answer, before that is said."""


class RemoteLink:
    """``address``: ``HOST:PORT`` of an engine that :mod:`rtc_server.engine.served` has. Its model may be loading yet,
    its machine not be there: it is greeted until it answers."""

    def __init__(self, address: str, key: ClusterKey) -> None:
        self._address = address
        self._dealer = Dealer(address, key.engine.public, key.node, "engine")
        self._tasks: list[asyncio.Task[None]] = []
        self._greeted = False

    @property
    def pid(self) -> None:
        """It is another machine's."""
        return None

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        self._dealer.connect()
        self._tasks = [
            asyncio.create_task(self._greet(), name="engine-greeting"),
            asyncio.create_task(self._read(on_message, on_exit), name="engine-reader"),
        ]

    def send(self, message: ToEngine) -> bool:
        return self._dealer.send(encode(message))

    async def close(self) -> None:
        if self._greeted:
            self.send(Goodbye())
        self._greeted = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._dealer.close()

    async def _greet(self) -> None:
        pause_s, waited_s = _FIRST_GREETING_S, 0.0
        while not self._greeted:
            self.send(Hello(PROTOCOL))
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            if waited_s - pause_s < _PATIENCE_S <= waited_s:
                logger.warning("the engine at %s has not answered yet", self._address)
            pause_s = min(2 * pause_s, _GREET_S)

    async def _read(self, on_message: OnMessage, on_exit: OnExit) -> None:
        while True:
            try:
                message = decode_from_engine(await self._dealer.receive())
            except msgspec.DecodeError:
                logger.warning("a message of the engine at %s that is none was ignored", self._address)
                continue
            match message:
                case OtherVersion():
                    on_message(_other_version(self._address, message))
                case Stranger():
                    if self._greeted:
                        on_exit()
                        return
                case Ready():
                    if not self._greeted:  # several greetings may have waited while its model was loading
                        self._greeted = True
                        on_message(message)
                case _:
                    on_message(message)


def _other_version(address: str, message: OtherVersion) -> LoadFailed:
    return LoadFailed(
        f"The engine at {address} speaks version {message.protocol} of the protocol, this server {PROTOCOL}.",
        "Install the same release of rtc-server on both machines.",
    )
