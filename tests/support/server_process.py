"""Servers in a process of their own: started, waited for, probed for what they hold, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lab.program import Program, without_settings
from tests.conftest import UNLIMITED
from tests.support.calls import get_json
from tests.support.log_watch import WATCH

PROBED: Final = "tests.integration.probed_server"
ROOT: Final = Path(__file__).parents[2]
_POLL_S: Final = 0.01


class ServerProcess(Program):
    """``rtc-server serve`` as a child process on a free port. ``url``: where it is, once it is ready."""

    url = ""

    async def wait_ready(self, timeout_s: float = 90.0, scheme: str = "http") -> None:
        """Until it has said where it is."""
        found = await self.wait_said(rf"{scheme}://localhost:(\d+)", timeout_s)
        self.url = f"{scheme}://127.0.0.1:{found[1]}"

    def on_log(self, line: bytes) -> None:
        super().on_log(line)
        WATCH.read_text("a server", line)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def probe(self) -> dict[str, Any]:
        """What a probed server holds: see ``tests/integration/probed_server.py``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"probe\n")
        async with asyncio.timeout(30):
            async for line in self.process.stdout:
                if line.startswith(b"{"):
                    return json.loads(line)  # type: ignore[no-any-return]
        raise AssertionError(f"the server ended: {self.log[-20:]}")


@contextlib.asynccontextmanager
async def server_process(
    *arguments: str,
    module: str = "rtc_server",
    within: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    **kwargs: Any,
) -> AsyncIterator[ServerProcess]:
    """``python -m module serve --port 0 …``, started but not waited for; killed at the end if it still runs.

    ``within``: a command that runs another one elsewhere.
    """
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        *("-m", module, "serve", "--port", "0", *UNLIMITED, *arguments),
        cwd=ROOT,
        env={**without_settings(environment), "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **{"stdin": asyncio.subprocess.PIPE, **kwargs},
    )
    server = ServerProcess(process)
    try:
        yield server
    finally:
        await server.kill()


async def until_empty(server: ServerProcess, timeout_s: float = 60.0) -> None:
    """Until the server has no session and no slot is taken."""
    deadline = time.monotonic() + timeout_s
    while True:
        _, status = await get_json(f"{server.url}/status")
        slots = {name: engine["slots_used"] for name, engine in status["engines"].items()}
        if not any(status["sessions"].values()) and not any(slots.values()):
            return
        assert time.monotonic() < deadline, f"not empty after {timeout_s} s: {status['sessions']}, slots {slots}"
        await asyncio.sleep(_POLL_S)


def _more(before: Any, now: Any) -> bool:
    if isinstance(now, dict):
        return bool(Counter(now) - Counter(before))
    return bool(now > before)


async def assert_gives_back(server: ServerProcess, before: dict[str, Any], timeout_s: float = 20.0) -> dict[str, Any]:
    """An empty, probed server holds no more tasks, threads, files, sockets or connections than it did before;
    gives the last look at it."""
    counts = ("tasks", "threads", "files", "udp", "objects")
    deadline = time.monotonic() + timeout_s
    while True:
        now = await server.probe()
        more = {name: (before[name], now[name]) for name in counts if _more(before[name], now[name])}
        if not more:
            return now
        assert time.monotonic() < deadline, f"left behind after {timeout_s} s: {more}"
        await asyncio.sleep(0.2)
