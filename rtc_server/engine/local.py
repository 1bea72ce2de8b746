"""An engine in this process, in a thread of its own: for ``echo``, and the twin of the child process in tests."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

from rtc_server.engine.core import serve
from rtc_server.engine.inbox import Arrival, Inbox
from rtc_server.engine.link import OnExit, OnMessage
from rtc_server.engine.messages import FromEngine, Stop, ToEngine
from rtc_server.engine.model import StreamingModel
from rtc_server.engine.owners import HOST, Owner
from rtc_server.engine.realtime import Clocks, RealTime

logger = logging.getLogger(__name__)


class LocalLink:
    """``load`` makes the model; it runs in the engine's thread."""

    def __init__(self, load: Callable[[], StreamingModel], real_time: RealTime = RealTime.UNMEASURED) -> None:
        self._load = load
        self._real_time = real_time
        self._inbox = Inbox()
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int:
        return os.getpid()

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        loop = asyncio.get_running_loop()

        def post(callback: Callable[[], None]) -> None:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:  # the loop is closed: no owner is left to be told
                logger.debug("engine thread outlived its loop")

        def exited() -> None:
            self._ended.set()
            on_exit()

        def main() -> None:
            port = _ThreadPort(self._inbox, lambda message: post(lambda: on_message(message)))
            try:
                serve(self._load, port, Clocks(time.monotonic, time.thread_time), self._real_time)
            except Exception:  # the border of a thread: the engine is lost, its owner restarts it
                logger.exception("the engine failed")
            finally:
                post(exited)

        self._thread = threading.Thread(target=main, name="engine", daemon=True)
        self._thread.start()

    def send(self, message: ToEngine) -> bool:
        return self._inbox.put(message) and not self._ended.is_set()

    async def close(self) -> None:
        if self._thread is None:
            return
        self.send(Stop())
        await self._ended.wait()
        self._thread.join()


class _ThreadPort:
    def __init__(self, inbox: Inbox, post: Callable[[FromEngine], None]) -> None:
        self._inbox = inbox
        self._post = post

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        return self._inbox.receive(wait_s)

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        self._post(message)
