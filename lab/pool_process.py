"""``rtc-server pool`` as a child process: started, waited for, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psutil

from lab.engine_process import key_file
from lab.program import Program, without_settings


def hosted_engines(directory: Path) -> list[psutil.Process]:
    """Engines that a pool started on a machine of its own accord, with this directory's key."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if command[2:4] == ["rtc_server.cli.hosted", "engine"] and str(key_file(directory)) in command:
                found.append(process)
    return found


class PoolProcess(Program):
    """``rtc-server pool``. ``address``: where it listens, once it is ready."""

    address = ""

    async def wait_ready(self, timeout_s: float = 60.0) -> None:
        self.address = (await self.wait_said(r"A pool at (\S+:\d+)\.", timeout_s))[1]


@contextlib.asynccontextmanager
async def pool_process(
    directory: Path, *options: str, listen: str = "127.0.0.1:0", environment: Mapping[str, str] = os.environ
) -> AsyncIterator[PoolProcess]:
    """Not ready yet; killed at the end if it has not ended before."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtc_server", "pool", "--pool-listen", listen),
        *("--cluster-key", str(key_file(directory)), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=without_settings(environment),
    )
    pool = PoolProcess(process)
    try:
        yield pool
    finally:
        await pool.kill()
