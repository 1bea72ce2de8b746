"""``rtc-server engine`` as a child process: started, waited for, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

SECRET: Final = b"what the machines of a cluster share, 32 bytes and more"
"""In the key file of every engine that is started here."""


class EngineProcess:
    """``rtc-server engine``. ``log``: what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.address = ""
        self.log: list[str] = []
        self._reader = asyncio.create_task(self._read(), name="engine-log")

    async def wait_ready(self, timeout_s: float = 60.0) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            async for line in self.process.stdout:
                found = re.search(r", at (\S+:\d+)\. On a media server", line.decode())
                if found:
                    self.address = found[1]
                    return
        await self._reader
        raise AssertionError(f"the engine ended before it was ready: {self.log}")

    async def wait_exit(self, timeout_s: float = 20.0) -> int:
        async with asyncio.timeout(timeout_s):
            await self._reader
            return await self.process.wait()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.wait_exit()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode().rstrip())


def key_file(directory: Path) -> Path:
    path = directory / "cluster.key"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


@contextlib.asynccontextmanager
async def engine_process(directory: Path, *options: str, listen: str = "127.0.0.1:0") -> AsyncIterator[EngineProcess]:
    """Not ready yet; killed at the end if it has not ended before."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RTC_SERVER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtc_server", "engine", "--engine-listen", listen),
        *("--cluster-key", str(key_file(directory)), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    engine = EngineProcess(process)
    try:
        yield engine
    finally:
        await engine.kill()
