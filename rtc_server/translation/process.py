"""A translator in a child process: both ends of it.

The parent's end is :class:`TranslatorLink`. The child runs ``python -m rtc_server.translation.process``, and is told,
ends and is bound to its parent as an engine is (:mod:`rtc_server.engine.process`).
"""

from __future__ import annotations

import logging
import os
import queue
from dataclasses import dataclass

import msgspec

from rtc_server.engine.child_link import Child, ChildLink, ChildSockets
from rtc_server.engine.factory import PackedOptions, make, pack, unpack
from rtc_server.engine.messages import LoadFailed, Stop
from rtc_server.errors import ModelLoadError
from rtc_server.system.child_process import answer_to_parent_alone, leave, read_first_line
from rtc_server.translation.desk import Arrived, Desk
from rtc_server.translation.messages import (
    FromTranslator,
    Loaded,
    ToTranslator,
    decode_from_translator,
    decode_to_translator,
    encode,
)
from rtc_server.translation.model import UtteranceModel


@dataclass(frozen=True, slots=True)
class TranslatorSpec:
    """What the child is to run. ``factory``: ``module:function``, called with ``options``, a frozen dataclass of plain
    values; returns an :class:`rtc_server.translation.model.UtteranceModel`. ``niceness``: how far it steps back for
    those who talk."""

    factory: str
    options: object
    log_level: int = logging.INFO
    niceness: int = 0


class FirstLine(msgspec.Struct, frozen=True):
    """What the child reads: what it runs, and the addresses that it connects to."""

    factory: str
    options: PackedOptions
    log_level: int
    niceness: int
    inbox: str
    outbox: str

    @staticmethod
    def of(spec: TranslatorSpec, inbox: str, outbox: str) -> FirstLine:
        return FirstLine(spec.factory, pack(spec.options), spec.log_level, spec.niceness, inbox, outbox)


class TranslatorLink(ChildLink[ToTranslator, FromTranslator]):
    """The parent's end: one child process, two one-way sockets that only this user can reach."""

    def __init__(self, spec: TranslatorSpec) -> None:
        super().__init__(
            Child(
                module="rtc_server.translation.process",
                name="translator",
                first_line=lambda inbox, outbox: msgspec.json.encode(FirstLine.of(spec, inbox, outbox)),
                encode=encode,
                decode=decode_from_translator,
                tells_ready=lambda message: isinstance(message, Loaded),
            )
        )


def main() -> int:
    """The child process. Its exit status is 0 after Stop, 2 if the model could not be loaded."""
    answer_to_parent_alone()
    line = read_first_line()
    if not line:
        return 0
    told = msgspec.json.decode(line, type=FirstLine)
    os.nice(told.niceness)
    logging.basicConfig(level=told.log_level, format="%(asctime)s %(levelname)s translator %(name)s: %(message)s")
    arrived: Arrived = queue.SimpleQueue()
    sockets = ChildSockets(
        told.inbox,
        told.outbox,
        take=lambda raw: arrived.put(decode_to_translator(raw)),
        ended=lambda: arrived.put(Stop()),
    )
    try:
        model: UtteranceModel = make(told.factory, unpack(told.options))
        model.warm_up()
    except ModelLoadError as error:
        sockets.send(encode(LoadFailed(error.message, error.hint)))
        sockets.wait_for_end()  # so that the reason is read before the exit is seen
        return 2
    else:
        Desk(model, arrived, lambda message: sockets.send(encode(message))).run()
        model.close()
    finally:
        sockets.close()
    return 0


if __name__ == "__main__":
    leave(main())
