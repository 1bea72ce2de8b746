"""An engine on another machine: the media node's end of the way to it, over ZeroMQ on TCP."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any, Final

import msgspec
import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

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
from rtc_server.engine.served import HANDSHAKE_MS, HEARTBEAT_MS, SILENCE_MS

logger = logging.getLogger(__name__)

_FIRST_GREETING_S: Final = 0.02
_GREET_S: Final = 0.5
"""Between greetings: at first the one is too early for the connection, and later the other."""
_PATIENCE_S: Final = 5.0
"""Without an answer, before that is said."""
_NAME_BYTES: Final = 16
_WAITING_MESSAGES: Final = 1_000
_PARTING_MS: Final = 200
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_HANDSHAKES: Final = "inproc://handshakes"
HANDSHAKE_FAILED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_AUTH | (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
)


def prepare_socket(socket: zmq.Socket[Any], key: ClusterKey) -> None:
    """Make it a media node's, to be connected to an engine."""
    socket.identity = secrets.token_bytes(_NAME_BYTES)
    socket.curve_serverkey = key.engine.public
    socket.curve_publickey, socket.curve_secretkey = key.node.public, key.node.secret
    socket.ipv6 = True
    socket.immediate = True  # what is said while there is no connection is not said later
    socket.set_hwm(_WAITING_MESSAGES)
    socket.maxmsgsize = _MAX_MESSAGE_BYTES
    socket.heartbeat_ivl, socket.heartbeat_timeout = HEARTBEAT_MS, SILENCE_MS
    socket.handshake_ivl = HANDSHAKE_MS
    socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 2_000


class RemoteLink:
    """``address``: ``HOST:PORT`` of an engine that :mod:`rtc_server.engine.served` has. Its model may be loading yet,
    its machine not be there: it is greeted until it answers."""

    def __init__(self, address: str, key: ClusterKey) -> None:
        self._address = address
        self._context = zmq.Context()
        self._socket = zmq.asyncio.Socket(self._context, zmq.DEALER)
        self._handshakes = zmq.asyncio.Socket(self._context, zmq.PAIR)
        prepare_socket(self._socket, key)
        self._socket.linger = _PARTING_MS
        self._tasks: list[asyncio.Task[None]] = []
        self._greeted = False
        self._closed = False

    @property
    def pid(self) -> None:
        """It is another machine's."""
        return None

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        self._socket.monitor(_HANDSHAKES, HANDSHAKE_FAILED)
        self._handshakes.connect(_HANDSHAKES)
        self._socket.connect(f"tcp://{self._address}")
        self._tasks = [
            asyncio.create_task(self._greet(), name="engine-greeting"),
            asyncio.create_task(self._read(on_message, on_exit), name="engine-reader"),
            asyncio.create_task(self._watch(), name="engine-handshakes"),
        ]

    def send(self, message: ToEngine) -> bool:
        if self._closed:
            return False
        # It is tried at once, and what comes back is done.
        sent: asyncio.Future[Any] = self._socket.send(encode(message), zmq.NOBLOCK)  # type: ignore[assignment]
        return sent.exception() is None

    async def close(self) -> None:
        if self._closed:
            return
        if self._greeted:
            self.send(Goodbye())
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.monitor(None, 0)
        self._handshakes.close()
        self._socket.close()
        await asyncio.to_thread(self._context.term)  # until the goodbye is out, or was given up

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
                message = decode_from_engine(await self._socket.recv())
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

    async def _watch(self) -> None:
        """Say once that the engine, or what listens there, does not take our key."""
        event = await recv_monitor_message(self._handshakes)
        logger.warning(
            "the engine at %s ends the handshake (%s): is its --cluster-key the same?",
            *(self._address, zmq.Event(event["event"]).name),
        )


def _other_version(address: str, message: OtherVersion) -> LoadFailed:
    return LoadFailed(
        f"The engine at {address} speaks version {message.protocol} of the protocol, this server {PROTOCOL}.",
        "Install the same release of rtc-server on both machines.",
    )
