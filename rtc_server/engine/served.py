"""An engine that media nodes on other machines use, over ZeroMQ on TCP: the engine's end.

One socket, which a thread of its own reads and writes, for the one that steps has no time to see when a message comes.
Who does not have the cluster's key gets no further than the handshake. A node that stalls loses what is said to it, and
keeps up nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import zmq

from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.core import serve
from rtc_server.engine.inbox import Arrival, Inbox
from rtc_server.engine.messages import (
    Drain,
    FromEngine,
    LoadFailed,
    Pong,
    Ready,
    Stop,
    ToEngine,
    decode_from_node,
    encode,
)
from rtc_server.engine.model import StreamingModel
from rtc_server.engine.owners import GRACE_S, HOST, Owner
from rtc_server.engine.realtime import Clocks, RealTime
from rtc_server.engine.sockets import WITHIN_MESSAGES, GuardedRouter
from rtc_server.errors import ModelLoadError

logger = logging.getLogger(__name__)

_AT_A_TIME: Final = 100
"""In one direction, before the other has its turn: a node that never stops talking keeps no answer from the others."""
_TOLD_S: Final = 5.0


class ServedPort:
    """The engine's port. ``address``: ``HOST:PORT`` to listen on, port 0 for any; :attr:`address` is the one it has.

    ``on_ready``: called with the model when it is there. Raises ConfigError where it cannot listen.
    """

    def __init__(self, address: str, key: ClusterKey, on_ready: Callable[[Ready], None] = lambda _: None) -> None:
        self.failure: LoadFailed | None = None
        self.loaded = False
        self.draining = False
        self.on_pong: Callable[[Pong], None] = lambda _: None
        """What the engine answers to a Ping of :meth:`tell`; called in the thread that steps."""
        self._on_ready = on_ready
        self._context = zmq.Context()
        self._door = GuardedRouter(self._context, address, key.engine, [key.node.public])
        self.address = self._door.address
        leaving = self._context.socket(zmq.PULL)
        self._outbox = self._context.socket(zmq.PUSH)
        for socket in (leaving, self._outbox):
            socket.set_hwm(WITHIN_MESSAGES)
            socket.linger = 0
        leaving.bind("inproc://leaving")
        self._outbox.connect("inproc://leaving")
        self._arrived = Inbox()
        self._carrier = threading.Thread(
            target=self._carry, args=(self._door.socket, leaving), name="engine-nodes", daemon=True
        )
        self._carrier.start()

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        return self._arrived.receive(wait_s)

    def tell(self, message: ToEngine) -> bool:
        """Say something to the engine as the one that started it; from any thread. False if it did not take it."""
        self.draining = self.draining or isinstance(message, Drain | Stop)
        return self._arrived.put(message, _TOLD_S)

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        if owner == HOST:
            self._report(message)
            return
        try:
            self._outbox.send_multipart((owner, encode(message)), zmq.NOBLOCK)
        except zmq.Again:
            logger.warning("the network does not keep up: a message was lost")

    def close(self) -> None:
        self._arrived.close()
        self._outbox.close()
        self._door.close()
        self._context.term()  # ends the carrier's waiting, and waits until it has closed its sockets
        self._carrier.join()

    def _report(self, message: FromEngine) -> None:
        match message:
            case Ready():
                self.loaded = True
                self._on_ready(message)
            case LoadFailed():
                self.failure = message
            case Pong():
                self.on_pong(message)
            case _:
                pass  # the rest is for those who have slots

    def _carry(self, router: zmq.Socket[bytes], leaving: zmq.Socket[bytes]) -> None:
        """The carrier's thread, which owns both sockets, until :meth:`close`."""
        with contextlib.suppress(zmq.ContextTerminated), router, leaving:
            poller = zmq.Poller()
            poller.register(router, zmq.POLLIN)
            poller.register(leaving, zmq.POLLIN)
            while True:
                poller.poll()
                self._send_some(router, leaving)
                self._take_some(router)

    def _send_some(self, router: zmq.Socket[bytes], leaving: zmq.Socket[bytes]) -> None:
        with contextlib.suppress(zmq.Again):
            for _ in range(_AT_A_TIME):
                parts = leaving.recv_multipart(zmq.NOBLOCK)
                with contextlib.suppress(zmq.Again):  # a node that has stalled, or is gone
                    router.send_multipart(parts, zmq.NOBLOCK)

    def _take_some(self, router: zmq.Socket[bytes]) -> None:
        with contextlib.suppress(zmq.Again):
            for _ in range(_AT_A_TIME):
                owner, *parts = router.recv_multipart(zmq.NOBLOCK)
                try:
                    (raw,) = parts
                    message = decode_from_node(raw)
                except (ValueError, msgspec.DecodeError):
                    logger.warning("a message that is none was ignored")
                    continue
                self._arrived.keep(message, owner)


def serve_nodes(
    load: Callable[[], StreamingModel],
    port: ServedPort,
    real_time: RealTime = RealTime.UNMEASURED,
    grace_s: float = GRACE_S,
    on_warm: Callable[[], None] = lambda: None,
) -> None:
    """One life of an engine that serves media nodes: until it is stopped, or drained. Closes ``port``. Raises
    ModelLoadError. ``on_warm``: as of :func:`rtc_server.engine.core.serve`."""
    try:
        serve(load, port, Clocks(time.monotonic, time.thread_time), real_time, grace_s, on_warm)
    finally:
        port.close()
    if port.failure is not None:
        raise ModelLoadError(port.failure.message, port.failure.hint)


def drain_at_signals(port: ServedPort, drain_s: float) -> None:
    """From now on, a signal that ends programs drains the engine, and another one, or ``drain_s`` later, stops it.
    While the model is loading there is nothing to end in order, and loading may take minutes: then the process ends. To
    be called from the main thread."""
    came: queue.SimpleQueue[int] = (
        queue.SimpleQueue()
    )  # the one that a signal's handler may fill, whatever it interrupts

    def wait() -> None:
        came.get()
        if not port.loaded:
            os._exit(0)
        logger.info("draining: conversations have %.0f s", drain_s)
        port.tell(Drain())
        with contextlib.suppress(queue.Empty):
            came.get(timeout=drain_s)
        port.tell(Stop())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: came.put(number))
    threading.Thread(target=wait, name="signals", daemon=True).start()
