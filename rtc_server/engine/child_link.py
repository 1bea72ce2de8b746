"""Both ends of the way between a process and the child that holds a model: two one-way sockets, in raw messages.

The parent's end is :class:`ChildLink`, which starts the child, tells it the addresses in its first line and learns of
its end. The child's end is :class:`ChildSockets`. What the messages are is given by those who use them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec
import zmq
import zmq.asyncio

from rtc_server.engine.link import OnExit
from rtc_server.engine.meeting import MeetingPoint
from rtc_server.engine.messages import LoadFailed, Stop
from rtc_server.system import memory
from rtc_server.system.child_process import ChildProcess

logger = logging.getLogger(__name__)

_QUEUE_MESSAGES: Final = 10_000
_CLOSE_TIMEOUT_S: Final = 5.0
To = TypeVar("To")
From = TypeVar("From")


@dataclass(frozen=True, slots=True)
class Child(Generic[To, From]):
    """A kind of child: ``module`` is what it runs, ``name`` what logs call it. ``first_line``: what it reads first, of
    the addresses of its inbox and its outbox. ``encode`` and ``decode``: of messages to it and from it.
    ``tells_ready``: whether a message says that its model is loaded."""

    module: str
    name: str
    first_line: Callable[[str, str], bytes]
    encode: Callable[[To | Stop], bytes]
    decode: Callable[[bytes], From | LoadFailed]
    tells_ready: Callable[[From | LoadFailed], bool]


class ChildLink(Generic[To, From]):
    """The parent's end: one child process, two one-way sockets that only this user can reach."""

    def __init__(self, child: Child[To, From]) -> None:
        self._child = child
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

    async def start(self, on_message: Callable[[From | LoadFailed], None], on_exit: OnExit) -> None:
        """See :class:`rtc_server.engine.link.Link`."""
        for socket in (self._to_child, self._from_child):
            socket.set_hwm(_QUEUE_MESSAGES)
            socket.linger = 0
        inbox, outbox = self._meeting.bind(self._to_child, "in"), self._meeting.bind(self._from_child, "out")
        self._process = ChildProcess(self._child.module)
        self._process.tell(self._child.first_line(inbox, outbox) + b"\n")
        reader = asyncio.create_task(self._read(on_message), name=f"{self._child.name}-reader")
        watcher = asyncio.create_task(
            self._watch(self._process, on_message, on_exit), name=f"{self._child.name}-watcher"
        )
        self._tasks = [reader, watcher]

    def send(self, message: To | Stop) -> bool:
        if self._closed or self._process is None or self._process.ended:
            return False
        try:
            self._to_child.send(self._child.encode(message), zmq.NOBLOCK)
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
                logger.warning("the %s process did not stop in %.0f s: killed", self._child.name, _CLOSE_TIMEOUT_S)
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._to_child.close()
        self._from_child.close()
        self._context.term()
        self._meeting.close()

    async def _read(self, on_message: Callable[[From | LoadFailed], None]) -> None:
        while True:
            message = self._child.decode(await self._from_child.recv())
            self._loaded = self._loaded or self._child.tells_ready(message)
            on_message(message)

    async def _watch(
        self, process: ChildProcess, on_message: Callable[[From | LoadFailed], None], on_exit: OnExit
    ) -> None:
        code = await process.wait()
        level = logging.INFO if code == 0 else logging.ERROR
        logger.log(level, "the %s process ended with status %d", self._child.name, code)
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


class ChildSockets:
    """The child's end. A thread of its own reads, for the one that computes has no time to see when a message comes.

    ``take`` is called in that thread with each message; it raises msgspec.DecodeError for what is none, which is
    ignored. ``ended`` is called there when the parent has closed our standard input, or is gone.
    """

    def __init__(self, inbox: str, outbox: str, take: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._take = take
        self._ended = ended
        self._context = zmq.Context()
        reads = self._socket(zmq.PULL, inbox)  # the first to connect: once we have said that we are ready, we are asked
        self._outbox = self._socket(zmq.PUSH, outbox)
        self._outbox.linger = 1000
        self._reader = threading.Thread(target=self._read, args=(reads,), name="engine-inbox", daemon=True)
        self._reader.start()

    def send(self, raw: bytes) -> None:
        """Never blocks: a parent that has stalled loses the message."""
        try:
            self._outbox.send(raw, zmq.NOBLOCK)
        except zmq.Again:
            logger.warning("the media plane does not read: a message was lost")

    def wait_for_end(self) -> None:
        """Returns when the parent has closed our standard input, or is gone."""
        self._reader.join()

    def close(self) -> None:
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
            self._ended()

    def _take_all(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                raw = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._take(raw)
            except msgspec.DecodeError:
                logger.warning("a message that is none was ignored")
