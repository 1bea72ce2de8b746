"""An engine in a child process, over ZeroMQ: both ends of it.

The parent's end is :class:`ProcessLink`. The child runs ``python -m rtc_server.engine.process``: it reads one
line of JSON from its standard input (which model, and the two addresses), loads the model and serves until it
is told to stop or its standard input ends, which is how it knows that its parent is gone. The function that
makes the model is named in that line, so that this layer need not know the models.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq
import zmq.asyncio

from rtc_server.engine.core import serve
from rtc_server.engine.factory import make_model
from rtc_server.engine.link import OnExit, OnMessage
from rtc_server.engine.messages import (
    FromEngine,
    Stop,
    ToEngine,
    decode_from_engine,
    decode_to_engine,
    encode,
)
from rtc_server.engine.pace import RealTime

logger = logging.getLogger(__name__)

_QUEUE_MESSAGES: Final = 10_000
_CLOSE_TIMEOUT_S: Final = 5.0


class ChildSpec(msgspec.Struct, frozen=True):
    """What the child needs to know. ``factory``: ``module:function``, called with ``options`` as keywords."""

    factory: str
    options: dict[str, Any]
    real_time: RealTime = RealTime.UNMEASURED
    inbox: str = ""
    outbox: str = ""
    log_level: int = logging.INFO


class ProcessLink:
    """The parent's end: one child process, two one-way sockets in a private directory."""

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._directory = Path(tempfile.mkdtemp(prefix="rtc-engine-"))
        self._context = zmq.Context()
        self._to_child = self._context.socket(zmq.PUSH)
        # Not from_socket(): the socket that it shadows is closed once more when it is collected, and by then
        # its handle may be that of another engine's socket.
        self._from_child = zmq.asyncio.Socket(self._context, zmq.PULL)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def pid(self) -> int:
        assert self._process is not None, "the engine was started"
        return self._process.pid

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        inbox, outbox = (f"ipc://{self._directory / name}" for name in ("in", "out"))
        for socket, address in ((self._to_child, inbox), (self._from_child, outbox)):
            socket.set_hwm(_QUEUE_MESSAGES)
            socket.linger = 0
            socket.bind(address)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rtc_server.engine.process", stdin=asyncio.subprocess.PIPE
        )
        assert self._process.stdin is not None
        spec = msgspec.structs.replace(self._spec, inbox=inbox, outbox=outbox)
        with contextlib.suppress(ConnectionError):  # it died at once: the watcher tells
            self._process.stdin.write(msgspec.json.encode(spec) + b"\n")
            await self._process.stdin.drain()
        reader = asyncio.create_task(self._read(on_message), name="engine-reader")
        watcher = asyncio.create_task(self._watch(self._process, on_exit), name="engine-watcher")
        self._tasks = [reader, watcher]

    def send(self, message: ToEngine) -> bool:
        if self._closed or self._process is None or self._process.returncode is not None:
            return False
        try:
            self._to_child.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    async def close(self) -> None:
        if self._closed:
            return
        if self._process is not None:
            self.send(Stop())
            await self._end(self._process)
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._to_child.close()
        self._from_child.close()
        self._context.term()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _CLOSE_TIMEOUT_S)
        except TimeoutError:
            logger.warning("the engine process did not stop in %.0f s: killed", _CLOSE_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _read(self, on_message: OnMessage) -> None:
        while True:
            raw = await self._from_child.recv()
            on_message(decode_from_engine(raw))

    async def _watch(self, process: asyncio.subprocess.Process, on_exit: OnExit) -> None:
        code = await process.wait()
        logger.log(logging.INFO if code == 0 else logging.ERROR, "the engine process ended with status %d", code)
        on_exit()


class _ZmqPort:
    """The child's end."""

    def __init__(self, spec: ChildSpec) -> None:
        self._context = zmq.Context()
        self._inbox = self._context.socket(zmq.PULL)
        self._outbox = self._context.socket(zmq.PUSH)
        for socket, address in ((self._inbox, spec.inbox), (self._outbox, spec.outbox)):
            socket.set_hwm(_QUEUE_MESSAGES)
            socket.connect(address)
        self._outbox.linger = 1000
        self._poller = zmq.Poller()
        self._poller.register(self._inbox, zmq.POLLIN)
        self._poller.register(sys.stdin.fileno(), zmq.POLLIN)

    def receive(self, wait_s: float | None) -> Iterable[ToEngine]:
        ready = dict(self._poller.poll(None if wait_s is None else math.ceil(wait_s * 1000)))
        if sys.stdin.fileno() in ready:  # nothing is ever sent there after the first line: it has ended
            yield Stop()
            return
        while True:
            try:
                yield decode_to_engine(self._inbox.recv(zmq.NOBLOCK))
            except zmq.Again:
                return

    def send(self, message: FromEngine) -> None:
        try:
            self._outbox.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            logger.warning("the media plane does not read: a message was lost")

    def wait_for_end(self) -> None:
        """Returns when the parent has closed our standard input, or is gone."""
        while os.read(sys.stdin.fileno(), 1):
            pass

    def close(self) -> None:
        self._inbox.close()
        self._outbox.close()
        self._context.term()


def main() -> int:
    """The child process. Its exit status is 0 after Stop, 2 if the model could not be loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's to handle
    # One unbuffered line: a buffered reader would hide the end of the pipe from the poller.
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            return 0
        line += byte
    spec = msgspec.json.decode(line, type=ChildSpec)
    logging.basicConfig(level=spec.log_level, format="%(asctime)s %(levelname)s engine %(name)s: %(message)s")
    port = _ZmqPort(spec)
    try:
        loaded = serve(lambda: make_model(spec.factory, spec.options), port, time.monotonic, spec.real_time)
        if not loaded:
            port.wait_for_end()  # so that the reason is read before the exit is seen
    finally:
        port.close()
    return 0 if loaded else 2


if __name__ == "__main__":
    sys.exit(main())
