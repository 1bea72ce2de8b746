"""A program of ours as a child process: its log is kept, what it prints is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Mapping
from typing import Final

_EXIT_S: Final = 40.0


def without_settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment in which no setting of the server's is given."""
    return {name: value for name, value in environment.items() if not name.startswith("RTC_SERVER_")}


class Program:
    """``process``: with pipes for what it prints and logs. ``log``: the lines so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[str] = []
        self._reader = asyncio.create_task(self._read_log(), name="log")

    async def wait_said(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """What it prints, as soon as a line has ``pattern`` in it. Raises AssertionError if it ends before."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            async for line in self.process.stdout:
                found = re.search(pattern, line.decode())
                if found:
                    return found
            await self._reader
        raise AssertionError(f"it ended before it was ready: {self.log}")

    async def wait_exit(self, timeout_s: float = _EXIT_S) -> int:
        """Its exit status."""
        async with asyncio.timeout(timeout_s):
            status = await self.process.wait()
            await self._reader
        return status

    async def kill(self) -> None:
        """Also if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._reader

    def on_log(self, line: bytes) -> None:
        """A line of its log."""
        self.log.append(line.decode().rstrip())

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.on_log(line)
