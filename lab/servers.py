"""Servers as child processes: start one, find it, know what it costs, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from lab.program import without_settings

ROOT: Final = Path(__file__).parent.parent
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class System:
    """``name``: as in tables. ``dialect``: how it is offered to. ``frame_s``: what it gathers before it can
    answer, and cannot be blamed for. ``command``: makes the command line for a port."""

    name: str
    dialect: str
    frame_s: float
    command: Callable[[int], Sequence[str]]


def cpu_s_of(process: psutil.Process) -> float:
    """CPU time of one process so far, in seconds. Raises psutil.NoSuchProcess."""
    times = process.cpu_times()
    return float(times.user + times.system)


class RunningServer:
    """One of the systems, as a process."""

    def __init__(self, system: System, url: str, process: asyncio.subprocess.Process) -> None:
        self.system = system
        self.url = url
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self, children: bool = True) -> float:
        """CPU time of the server so far, in seconds, and of all its ``children``: engines are such."""
        return self._sum(cpu_s_of, children)

    def memory_bytes(self) -> float:
        """What the server and all its children hold in memory, what they share counted once (proportional set size)."""
        return self._sum(lambda process: float(process.memory_full_info().pss), children=True)

    def _sum(self, of: Callable[[psutil.Process], float], children: bool) -> float:
        root = psutil.Process(self._process.pid)
        total = 0.0
        for process in (root, *(root.children(recursive=True) if children else ())):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += of(process)
        return total


@contextlib.asynccontextmanager
async def running(system: System, extra: Sequence[str] = ()) -> AsyncIterator[RunningServer]:
    """A server, listening. Raises RuntimeError with the end of its log if it does not come up."""
    port = free_port()
    command = [*system.command(port), *extra]
    environment = without_settings()
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            if not await _listening(process, port):
                log.seek(0)
                raise RuntimeError(f"{system.name} did not start:\n{log.read().decode()[-2000:]}")
            yield RunningServer(system, f"http://127.0.0.1:{port}", process)
        finally:
            await _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _listening(process: asyncio.subprocess.Process, port: int) -> bool:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return True
    return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
