"""An engine in a child process: both ends of it.

The parent's end is :class:`ProcessLink`. The child runs ``python -m rtc_server.engine.process``: it reads one
line of JSON from its standard input (which model, and the two addresses), loads the model and serves until it
is told to stop or its standard input ends, which is how it knows that its parent is gone; it is deaf to the signals
that a whole group of processes gets. The function that makes the model is named in that line, so that this layer need
not know the models.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from rtc_server.engine.child_link import Child, ChildLink, ChildSockets
from rtc_server.engine.core import serve
from rtc_server.engine.factory import ModelOptions, PackedOptions, keep_for_life, make_model, pack, unpack
from rtc_server.engine.inbox import Arrival, Inbox
from rtc_server.engine.messages import (
    FromEngine,
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
from rtc_server.system.child_process import answer_to_parent_alone, leave, read_first_line


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


class ProcessLink(ChildLink[ToEngine, FromEngine]):
    """The parent's end: one child process, two one-way sockets that only this user can reach."""

    def __init__(self, spec: ChildSpec) -> None:
        super().__init__(
            Child(
                module="rtc_server.engine.process",
                name="engine",
                first_line=lambda inbox, outbox: msgspec.json.encode(FirstLine.of(spec, inbox, outbox)),
                encode=encode,
                decode=decode_from_engine,
                tells_ready=lambda message: isinstance(message, Ready),
            )
        )


class ChildPort:
    """The child's end."""

    def __init__(self, inbox: str, outbox: str) -> None:
        self._arrived = Inbox()
        self._sockets = ChildSockets(
            inbox,
            outbox,
            take=lambda raw: self._arrived.keep(decode_to_engine(raw)),
            ended=lambda: self._arrived.keep(Stop()),
        )

    @property
    def waiting(self) -> int:
        """Messages that have come and were not received yet."""
        return len(self._arrived)

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        return self._arrived.receive(wait_s)

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        self._sockets.send(encode(message))

    def wait_for_end(self) -> None:
        """Returns when the parent has closed our standard input, or is gone."""
        self._sockets.wait_for_end()

    def close(self) -> None:
        self._arrived.close()
        self._sockets.close()


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
        clocks = Clocks(time.monotonic, time.thread_time)
        loaded = serve(told.spec.load, port, clocks, told.spec.real_time, on_warm=keep_for_life)
        if not loaded:
            port.wait_for_end()  # so that the reason is read before the exit is seen
    finally:
        port.close()
    return 0 if loaded else 2


if __name__ == "__main__":
    leave(main())
