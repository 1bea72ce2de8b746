"""The sockets between machines, ZeroMQ on TCP: one that listens for those who have the cluster's key, and one that
connects. Encrypted both ways (CurveZMQ), bounded, and closed by the silence of the other side."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection
from typing import Any, Final

import zmq
import zmq.asyncio
import zmq.auth.thread
from zmq.utils.monitor import recv_monitor_message

from rtc_server.engine.cluster_key import KeyPair
from rtc_server.errors import ConfigError

logger = logging.getLogger(__name__)

HEARTBEAT_MS: Final = 1_000
SILENCE_MS: Final = 3_000
"""After which a connection is dead, and what waits for it is dropped."""
HANDSHAKE_MS: Final = 5_000
_MAX_MESSAGE_BYTES: Final = 65_536
"""That may come in where it is listened: a frame has 7,680, and nothing that is said there has more."""
_TO_ONE_MESSAGES: Final = 100
"""That may wait for one that is connected: an engine's steps come 12 to some hundred times a second."""
WITHIN_MESSAGES: Final = 10_000
_NAME_BYTES: Final = 16
_WAITING_MESSAGES: Final = 1_000
PARTING_MS: Final = 200
"""For what was said last to leave."""
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_HANDSHAKES: Final = "inproc://handshakes"
HANDSHAKE_FAILED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_AUTH | (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
)


class GuardedRouter:
    """A ROUTER that listens at ``address`` (``HOST:PORT``, port 0 for any) as the one that has ``own``, and lets those
    in who have one of the public keys ``let_in``. :attr:`address` is the one it has. The socket is closed by those who
    use it, before :meth:`close`. Raises ConfigError where it cannot listen."""

    def __init__(
        self, context: zmq.Context[Any], address: str, own: KeyPair, let_in: Collection[bytes], socket_class: Any = None
    ) -> None:
        self._guard = zmq.auth.thread.ThreadAuthenticator(context)
        self._guard.start()
        self._guard.configure_curve_callback("*", _Only(let_in))
        self.socket = context.socket(zmq.ROUTER, socket_class=socket_class)
        _set_up(self.socket, own)
        try:
            self.socket.bind(f"tcp://{address}")
        except zmq.ZMQError as error:
            self._guard.stop()
            context.destroy(linger=0)
            raise ConfigError(f"Cannot listen on {address}: {error.strerror}.") from error
        port = str(self.socket.getsockopt_string(zmq.LAST_ENDPOINT)).rpartition(":")[2]
        self.address = f"{address.rpartition(':')[0]}:{port}"

    def close(self) -> None:
        self._guard.stop()


class _Only:
    """Tells the handshake which keys may come in."""

    def __init__(self, let_in: Collection[bytes]) -> None:
        self._let_in = frozenset(let_in)

    def callback(self, domain: str, key: bytes) -> bool:
        return key in self._let_in


def _set_up(router: zmq.Socket[Any], own: KeyPair) -> None:
    router.curve_server = True
    router.curve_secretkey, router.curve_publickey = own.secret, own.public
    router.linger = 0
    router.router_handover = True  # one that is back before its old connection has died
    router.ipv6 = True
    router.set_hwm(_TO_ONE_MESSAGES)
    router.rcvhwm = WITHIN_MESSAGES
    router.maxmsgsize = _MAX_MESSAGE_BYTES
    router.heartbeat_ivl, router.heartbeat_timeout = HEARTBEAT_MS, SILENCE_MS
    router.handshake_ivl = HANDSHAKE_MS


def prepare_dealer(socket: zmq.Socket[Any], server: bytes, own: KeyPair) -> None:
    """Make it ready to be connected, under a name of its own, to the one that has the key ``server``."""
    socket.identity = secrets.token_bytes(_NAME_BYTES)
    socket.curve_serverkey = server
    socket.curve_publickey, socket.curve_secretkey = own.public, own.secret
    socket.ipv6 = True
    socket.immediate = True  # what is said while there is no connection is not said later
    socket.set_hwm(_WAITING_MESSAGES)
    socket.maxmsgsize = _MAX_ANSWER_BYTES
    socket.heartbeat_ivl, socket.heartbeat_timeout = HEARTBEAT_MS, SILENCE_MS
    socket.handshake_ivl = HANDSHAKE_MS
    socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 2_000


class Dealer:
    """A DEALER of the event loop, under a name of its own, to ``address``, where the one that has the key ``server``
    listens, and ``own`` is let in. It connects again for ever. ``what``: what is there, for the log."""

    def __init__(self, address: str, server: bytes, own: KeyPair, what: str) -> None:
        self._address = address
        self._what = what
        self._context = zmq.Context()
        self._socket = zmq.asyncio.Socket(self._context, zmq.DEALER)
        self._handshakes = zmq.asyncio.Socket(self._context, zmq.PAIR)
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False
        prepare_dealer(self._socket, server, own)
        self._socket.linger = PARTING_MS

    def connect(self) -> None:
        self._socket.monitor(_HANDSHAKES, HANDSHAKE_FAILED)
        self._handshakes.connect(_HANDSHAKES)
        self._socket.connect(f"tcp://{self._address}")
        self._watcher = asyncio.create_task(self._watch(), name="handshakes")

    def send(self, message: bytes) -> bool:
        """Never blocks; False if there is no connection, or too much waits for it."""
        if self._closed:
            return False
        # It is tried at once, and what comes back is done.
        sent: asyncio.Future[Any] = self._socket.send(message, zmq.NOBLOCK)  # type: ignore[assignment]
        return sent.exception() is None

    async def receive(self) -> bytes:
        """Safe to cancel."""
        return await self._socket.recv()

    async def close(self) -> None:
        """Nothing is received any more; what was said last may still leave. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        self._socket.monitor(None, 0)
        self._handshakes.close()
        self._socket.close()
        await asyncio.to_thread(self._context.term)  # until the last word is out, or was given up

    async def _watch(self) -> None:
        """Say once that what listens there does not take our key."""
        event = await recv_monitor_message(self._handshakes)
        logger.warning(
            "the %s at %s ends the handshake (%s): is its --cluster-key the same?",
            *(self._what, self._address, zmq.Event(event["event"]).name),
        )
