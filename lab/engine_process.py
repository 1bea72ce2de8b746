"""``rtc-server engine`` as a child process: started, waited for, killed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from lab.program import Program, without_settings

SECRET: Final = b"what the machines of a cluster share, 32 bytes and more"
"""In the key file of every engine that is started here."""


class EngineProcess(Program):
    """``rtc-server engine``. ``address``: where it listens, once it is ready."""

    address = ""

    async def wait_ready(self, timeout_s: float = 60.0) -> None:
        self.address = (await self.wait_said(r", at (\S+:\d+)\. On a media server", timeout_s))[1]


def key_file(directory: Path) -> Path:
    path = directory / "cluster.key"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


@contextlib.asynccontextmanager
async def engine_process(directory: Path, *options: str, listen: str = "127.0.0.1:0") -> AsyncIterator[EngineProcess]:
    """Not ready yet; killed at the end if it has not ended before."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtc_server", "engine", "--engine-listen", listen),
        *("--cluster-key", str(key_file(directory)), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=without_settings(),
    )
    engine = EngineProcess(process)
    try:
        yield engine
    finally:
        await engine.kill()
