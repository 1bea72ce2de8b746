"""``rtc-server serve`` that tells what it holds: one line of JSON on stdout for each line on stdin.

A program of its own, so that what a test's clients hold is not counted with it. The server itself is the real one.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import sys
import threading
from collections import Counter
from typing import Any, Final

import aioice
import aiortc
import psutil
import uvloop

from rtc_server import config
from rtc_server.app import Server, serve
from rtc_server.engine.stream import EngineStream
from rtc_server.sessions.session import Session

_COUNTED: Final = (Session, EngineStream, aiortc.RTCPeerConnection, aiortc.RTCDataChannel, aioice.Connection)


def probe() -> dict[str, Any]:
    """``tasks`` by what they run, ``threads`` by name, ``files`` and ``udp`` sockets open, live ``objects`` by class,
    ``blocks`` of Python's allocator, ``rss`` in bytes; after a full collection."""
    gc.collect()
    gc.collect()
    # What is free goes back to the system first: how much of it glibc keeps varies by a sixth from look to look.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    process = psutil.Process()
    live = Counter(type(thing) for thing in gc.get_objects())
    return {
        "tasks": dict(Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())),  # type: ignore[union-attr]
        # The default executor grows to its limit of threads, which is no leak, but takes its time.
        "threads": dict(Counter(thread.name for thread in threading.enumerate() if "asyncio_" not in thread.name)),
        "files": process.num_fds(),
        "udp": len(process.net_connections(kind="udp")),
        "objects": {kind.__name__: live[kind] for kind in _COUNTED},
        "blocks": sys.getallocatedblocks(),
        "rss": process.memory_info().rss,
    }


async def _answer() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb"))
    while await reader.readline():
        sys.stdout.write(json.dumps(probe()) + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    config.add_arguments(parser)
    settings = config.from_arguments(parser.parse_args())
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    tasks: list[asyncio.Task[None]] = []

    def announce(server: Server) -> None:
        sys.stdout.write(f"http://localhost:{server.port}\n")
        sys.stdout.flush()
        tasks.append(asyncio.get_running_loop().create_task(_answer(), name="probe"))

    uvloop.run(serve(settings, announce))


if __name__ == "__main__":
    main()
