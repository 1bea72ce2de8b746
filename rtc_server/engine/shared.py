"""An engine that all media processes of a server use: a child process that listens on loopback.

The parent's end is :class:`SharedEngine`. The child runs ``python -m rtc_server.engine.shared``: it reads one line of
JSON from its standard input (which model, the address, and the cluster's secret), and serves until its standard input
ends. It is deaf to the signals that a whole group of processes gets: conversations go on in it while they are let end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from typing import Final

import msgspec

from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.factory import keep_for_life
from rtc_server.engine.messages import Stop
from rtc_server.engine.owners import GRACE_S
from rtc_server.engine.process import ChildSpec, PackedSpec
from rtc_server.engine.served import ServedPort, serve_nodes
from rtc_server.errors import ModelLoadError
from rtc_server.system import descriptors
from rtc_server.system.child_process import ChildProcess, answer_to_parent_alone, read_first_line

logger = logging.getLogger(__name__)

CANNOT_BE_LOADED: Final = 3
"""The child's exit status where another try would end in the same way; it has said why."""
_ANY_PORT: Final = "127.0.0.1:0"
_CLOSE_S: Final = 5.0


class _FirstLine(msgspec.Struct, frozen=True):
    """What the child reads. ``tell``: the descriptor on which it says where it listens."""

    spec: PackedSpec
    secret: bytes
    address: str
    tell: int
    grace_s: float


class SharedEngine:
    """The parent's end. ``address``: HOST:PORT, the same for each process that takes another's place. ``grace_s``: for
    which the slots of a media process that has fallen silent are kept."""

    def __init__(self, spec: ChildSpec, secret: bytes, grace_s: float = GRACE_S) -> None:
        self.address = _ANY_PORT
        self._spec = spec
        self._secret = secret
        self._grace_s = grace_s
        self._process: ChildProcess | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> ChildProcess:
        """Start the process, and wait until it listens; its model is not loaded yet. Raises OSError."""
        reading, writing = os.pipe()
        try:
            self._process = ChildProcess("rtc_server.engine.shared", pass_fds=(writing,))
            line = _FirstLine(PackedSpec.of(self._spec), self._secret, self.address, writing, self._grace_s)
            self._process.tell(msgspec.json.encode(line) + b"\n")
        finally:
            os.close(writing)
        told = await asyncio.to_thread(_read_all, reading)
        self.address = told or self.address
        return self._process

    async def close(self) -> None:
        if self._process is not None:
            await self._process.end(_CLOSE_S)


def _read_all(descriptor: int) -> str:
    """What is written into a pipe until it is closed there, and that is little."""
    told = b""
    while part := os.read(descriptor, 256):
        told += part
    os.close(descriptor)
    return told.decode()


def main() -> int:
    """The child process."""
    answer_to_parent_alone()
    line = read_first_line()
    if not line:
        return 0
    told = msgspec.json.decode(line, type=_FirstLine)
    told.spec.settle()
    descriptors.raise_limit()
    port = ServedPort(told.address, ClusterKey.of(told.secret))
    os.write(told.tell, port.address.encode())
    os.close(told.tell)
    threading.Thread(target=_end_with_input, args=(port,), name="parent", daemon=True).start()
    try:
        serve_nodes(told.spec.load, port, told.spec.real_time, told.grace_s, keep_for_life)
    except ModelLoadError as error:
        logger.error("the model cannot be loaded: %s %s", error.message, error.hint or "")
        return CANNOT_BE_LOADED
    return 0


def _end_with_input(port: ServedPort) -> None:
    """The parent has closed our standard input: while the model is loading there is nothing to end in order."""
    with contextlib.suppress(OSError):
        sys.stdin.buffer.read()
    if not port.loaded:
        os._exit(0)
    port.tell(Stop())


if __name__ == "__main__":
    sys.exit(main())
