"""A program that is started again whenever it has ended, as a service manager does it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final

_PAUSE_S: Final = 0.5
"""Before it is started again."""
_END_S: Final = 10.0
_KEPT_LINES: Final = 100
_LOOK_S: Final = 0.05


class Kept:
    """``name``: in what is told of it. ``ready``: a pattern of the line that it prints when it is. ``tell``: called
    with a line when it has ended and is started again. It is in a session of its own: a Ctrl-C is not for it."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], ready: str, tell: Callable[[str], None]
    ) -> None:
        self.name = name
        self.log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._command = command
        self._environment = environment
        self._pattern = ready
        self._tell = tell
        self._ready = asyncio.Event()
        self._was_ready = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "started"
        return self._process.pid

    async def wait_ready(self) -> None:
        """For the process that there is, or the next. Safe to cancel."""
        await self._ready.wait()

    def stop(self) -> None:
        """As service managers do before they start another one."""
        self._ready.clear()
        assert self._process is not None, "started"
        _send(self._process, signal.SIGTERM)

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self._ready.clear()
        assert self._process is not None, "started"
        _send(self._process, signal.SIGKILL)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Started inside; ended after it. What it gives waits until it is ready for the first time, and raises
        RuntimeError, with the end of its log, if it ends before."""
        keeping = asyncio.create_task(self._keep(), name=f"keep-{self.name}")
        ready = asyncio.create_task(self.wait_ready(), name=f"ready-{self.name}")

        async def first_ready() -> None:
            await asyncio.wait([keeping, ready], return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                await keeping

        try:
            yield first_ready
        finally:
            for task in (ready, keeping):
                task.cancel()
            await asyncio.gather(ready, keeping, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            status = await self._run()
            if not self._was_ready:
                raise RuntimeError("\n".join([f"{self.name} ended with status {status}:", *self.log]))
            self._ready.clear()
            self._tell(f"{self.name} has ended ({_named(status)}) and is started again")
            await asyncio.sleep(_PAUSE_S)

    async def _run(self) -> int:
        """One process of it; its exit status."""
        pipe = asyncio.subprocess.PIPE
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=dict(self._environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        reading = asyncio.create_task(self._read(process), name=f"log-{self.name}")
        try:
            while process.returncode is None:  # noqa: ASYNC110 - its children may outlive it, and hold its pipe
                await asyncio.sleep(_LOOK_S)
            return process.returncode
        finally:
            await asyncio.shield(_end(process))
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self._on_line(line.decode(errors="replace").rstrip())

    def _on_line(self, line: str) -> None:
        self.log.append(line)
        if re.search(self._pattern, line) and not self._ready.is_set():
            if self._was_ready:
                self._tell(f"{self.name} is ready again")
            self._was_ready = True
            self._ready.set()


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _named(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """As it is told to end, and by force if it does not."""
    _send(process, signal.SIGTERM)
    deadline = time.monotonic() + _END_S
    while process.returncode is None:
        await asyncio.sleep(_LOOK_S)
        if time.monotonic() > deadline:
            _send(process, signal.SIGKILL)


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Its own ``send_signal`` collects the status of one that has just ended, which asyncio then does not find."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
