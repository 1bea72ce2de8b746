"""An engine in a child process, over ZeroMQ: both ends of it.

The parent's end is :class:`ProcessLink`. The child runs ``python -m rtc_server.engine.process``: it reads one
line of JSON from its standard input (which model, and the two addresses), loads the model and serves until it
is told to stop or its standard input ends, which is how it knows that its parent is gone; it is deaf to the signals
that a whole group of processes gets. The function that makes the model is named in that line, so that this layer need
not know the models.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
import zmq
import zmq.asyncio

from rtc_server.engine.core import serve
from rtc_server.engine.factory import ModelOptions, PackedOptions, make_model, pack, unpack
from rtc_server.engine.inbox import Arrival, Inbox
from rtc_server.engine.link import OnExit, OnMessage
from rtc_server.engine.meeting import MeetingPoint
from rtc_server.engine.messages import (
    FromEngine,
    LoadFailed,
    Ready,
    Stop,
    ToEngine,
    decode_from_engine,
    decode_to_engine,
    encode,
)
from rtc_server.engine.model import StreamingModel
from rtc_server.engine.owners import HOST, Owner
from rtc_server.engine.realtime import Clocks, RealTime
from rtc_server.system import memory
from rtc_server.system.child_process import ChildProcess, answer_to_parent_alone, read_first_line

logger = logging.getLogger(__name__)

_QUEUE_MESSAGES: Final = 10_000
_CLOSE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What the child is to run. ``factory``: ``module:function``, called with ``options``."""

    factory: str
    options: ModelOptions
    real_time: RealTime = RealTime.UNMEASURED
    log_level: int = logging.INFO
    niceness: int = 0
    """What is added to this process's: how far it steps back where cores are few (``nice``, POSIX)."""


class PackedSpec(msgspec.Struct, frozen=True):
    """A :class:`ChildSpec` on its way to the child."""

    factory: str
    options: PackedOptions
    real_time: RealTime
    log_level: int
    niceness: int

    @staticmethod
    def of(spec: ChildSpec) -> PackedSpec:
        return PackedSpec(spec.factory, pack(spec.options), spec.real_time, spec.log_level, spec.niceness)

    def settle(self) -> None:
        """Be as nice as it says, and log."""
        os.nice(self.niceness)
        logging.basicConfig(level=self.log_level, format="%(asctime)s %(levelname)s engine %(name)s: %(message)s")

    def load(self) -> StreamingModel:
        """Make the model. Raises ModelLoadError."""
        return make_model(self.factory, unpack(self.options))


class FirstLine(msgspec.Struct, frozen=True):
    """What the child reads: what it runs, and the addresses that it connects to."""

    spec: PackedSpec
    inbox: str
    outbox: str

    @staticmethod
    def of(spec: ChildSpec, inbox: str, outbox: str) -> FirstLine:
        return FirstLine(PackedSpec.of(spec), inbox, outbox)


class ProcessLink:
    """The parent's end: one child process, two one-way sockets that only this user can reach."""

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._meeting = MeetingPoint()
        self._context = zmq.Context()
        self._to_child = self._context.socket(zmq.PUSH)
        # Not from_socket(): the socket that it shadows is closed once more when it is collected, and by then
        # its handle may be that of another engine's socket.
        self._from_child = zmq.asyncio.Socket(self._context, zmq.PULL)
        self._process: ChildProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._loaded = False
        self._closing = False
        self._closed = False

    @property
    def pid(self) -> int:
        assert self._process is not None, "the engine was started"
        return self._process.pid

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        for socket in (self._to_child, self._from_child):
            socket.set_hwm(_QUEUE_MESSAGES)
            socket.linger = 0
        inbox, outbox = self._meeting.bind(self._to_child, "in"), self._meeting.bind(self._from_child, "out")
        self._process = ChildProcess("rtc_server.engine.process")
        self._process.tell(msgspec.json.encode(FirstLine.of(self._spec, inbox, outbox)) + b"\n")
        reader = asyncio.create_task(self._read(on_message), name="engine-reader")
        watcher = asyncio.create_task(self._watch(self._process, on_message, on_exit), name="engine-watcher")
        self._tasks = [reader, watcher]

    def send(self, message: ToEngine) -> bool:
        if self._closed or self._process is None or self._process.ended:
            return False
        try:
            self._to_child.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    async def close(self) -> None:
        if self._closed:
            return
        self._closing = True
        if self._process is not None:
            self.send(Stop())
            if not await self._process.end(_CLOSE_TIMEOUT_S):
                logger.warning("the engine process did not stop in %.0f s: killed", _CLOSE_TIMEOUT_S)
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._to_child.close()
        self._from_child.close()
        self._context.term()
        self._meeting.close()

    async def _read(self, on_message: OnMessage) -> None:
        while True:
            message = decode_from_engine(await self._from_child.recv())
            self._loaded = self._loaded or isinstance(message, Ready)
            on_message(message)

    async def _watch(self, process: ChildProcess, on_message: OnMessage, on_exit: OnExit) -> None:
        code = await process.wait()
        logger.log(logging.INFO if code == 0 else logging.ERROR, "the engine process ended with status %d", code)
        if code == -signal.SIGKILL and not self._loaded and not self._closing:
            on_message(_killed_while_loading())
        on_exit()


def _killed_while_loading() -> LoadFailed:
    """The report of an engine that the system killed for want of memory: another try would end in the same way."""
    free = memory.free_bytes()
    room = f", with {memory.size_text(free)} free before it is tried again" if free else ""
    return LoadFailed(
        f"The model was killed while it was loading, most likely because memory ran out{room}.",
        "rtc-server check says what it needs. Fewer slots, a smaller --context, --dtype or model need less.",
    )


class ChildPort:
    """The child's end. A thread of its own reads, for the one that steps has no time to see when a message comes."""

    def __init__(self, inbox: str, outbox: str) -> None:
        self._context = zmq.Context()
        reads = self._socket(zmq.PULL, inbox)  # the first to connect: once we have said that we are ready, we are asked
        self._outbox = self._socket(zmq.PUSH, outbox)
        self._outbox.linger = 1000
        self._arrived = Inbox()
        self._reader = threading.Thread(target=self._read, args=(reads,), name="engine-inbox", daemon=True)
        self._reader.start()

    @property
    def waiting(self) -> int:
        """Messages that have come and were not received yet."""
        return len(self._arrived)

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        return self._arrived.receive(wait_s)

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        try:
            self._outbox.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            logger.warning("the media plane does not read: a message was lost")

    def wait_for_end(self) -> None:
        """Returns when the parent has closed our standard input, or is gone."""
        self._reader.join()

    def close(self) -> None:
        self._arrived.close()
        self._outbox.close()
        self._context.term()  # ends the reader's waiting, and waits until it has closed its socket
        self._reader.join()

    def _socket(self, kind: int, address: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.set_hwm(_QUEUE_MESSAGES)
        socket.connect(address)
        return socket

    def _read(self, socket: zmq.Socket[bytes]) -> None:
        """The reader's thread, which owns ``socket``: until our standard input ends, or :meth:`close`."""
        with contextlib.suppress(zmq.ContextTerminated), socket:
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            poller.register(sys.stdin.fileno(), zmq.POLLIN)
            # Nothing is ever sent on standard input after the first line: what can be read there is its end.
            while sys.stdin.fileno() not in dict(poller.poll()):
                self._take_all(socket)
            self._arrived.keep(Stop())

    def _take_all(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                self._arrived.keep(decode_to_engine(socket.recv(zmq.NOBLOCK)))
            except zmq.Again:
                return
            except msgspec.DecodeError:
                logger.warning("a message that is none was ignored")


def main() -> int:
    """The child process. Its exit status is 0 after Stop, 2 if the model could not be loaded."""
    answer_to_parent_alone()
    line = read_first_line()
    if not line:
        return 0
    told = msgspec.json.decode(line, type=FirstLine)
    told.spec.settle()
    port = ChildPort(told.inbox, told.outbox)
    try:
        loaded = serve(told.spec.load, port, Clocks(time.monotonic, time.thread_time), told.spec.real_time)
        if not loaded:
            port.wait_for_end()  # so that the reason is read before the exit is seen
    finally:
        port.close()
    return 0 if loaded else 2


if __name__ == "__main__":
    sys.exit(main())
