"""One media process of a server that has several: ``python -m rtc_server.cli.media_process``, started by
:mod:`rtc_server.cli.process_group`.

It reads one line of JSON from its standard input, and then a word for each thing that it is to do; at its end it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from rtc_server.app import Server, run
from rtc_server.cli import running
from rtc_server.cli.announce import announce
from rtc_server.config import Settings
from rtc_server.errors import StartupError
from rtc_server.system import descriptors
from rtc_server.system.child_process import answer_to_parent_alone, read_first_line
from rtc_server.web.siblings import WorkerPlace
from rtc_server.worker import Worker

STOP: Final = b"stop\n"
HURRY: Final = b"hurry\n"
RELOAD: Final = b"reload\n"
CANNOT_START: Final = 3
"""The exit status where another try would end in the same way; it has said why."""


class FirstLine(msgspec.Struct, frozen=True):
    """What it reads first. ``announces``: it tells the operator where the server is, once it is ready."""

    settings: Settings
    index: int
    count: int
    directory: str
    key: bytes
    listeners: tuple[int, ...]
    announces: bool


def main() -> int:
    """The process."""
    answer_to_parent_alone()
    line = read_first_line()
    if not line:
        return 0
    told = msgspec.json.decode(line, type=FirstLine)
    running.configure_logging(told.settings, f"worker {told.index} ")
    descriptors.raise_limit()
    try:
        running.run(_serve(told), told.settings)
    except StartupError as error:
        running.explain(error)
        return CANNOT_START
    return 0


async def _serve(told: FirstLine) -> None:
    place = WorkerPlace(told.index, told.count, Path(told.directory))
    server = Server(told.settings, worker=Worker(place, told.key, told.listeners))
    stop, hurry = asyncio.Event(), asyncio.Event()
    reading = asyncio.create_task(_obey(stop, hurry, server.reload), name="parent")
    try:
        await run(server, stop, hurry, announce if told.announces else lambda _: None)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _obey(stop: asyncio.Event, hurry: asyncio.Event, reload: Callable[[], None]) -> None:
    """Do what the parent says, to the end of our standard input, which is its own end."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with contextlib.closing(transport):
        async for word in reader:
            match word:
                case _ if word == RELOAD:
                    reload()
                case _ if word == HURRY:
                    hurry.set()
                case _:
                    stop.set()
    stop.set()
    hurry.set()


if __name__ == "__main__":
    sys.exit(main())
