"""A real Redis of a test's own, which can be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.conftest import need_commands

_STARTS_S = 30.0


class RedisServer:
    """``keeps``: what it knows outlives it. ``tls``: its certificate for localhost, which is its own authority, and the
    key; then it speaks nothing else."""

    def __init__(self, directory: Path, port: int, keeps: bool, tls: tuple[Path, Path] | None = None) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        if tls is not None:
            self.url = f"rediss://localhost:{port}/0?ssl_ca_certs={tls[0]}"
        self._tls = tls
        self._directory = directory
        self._port = port
        self._keeps = keeps
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        append = ("--appendonly", "yes", "--appendfsync", "always") if self._keeps else ()
        at: tuple[str, ...] = ("--port", str(self._port))
        if self._tls is not None:
            certificate, key = map(str, self._tls)
            at = ("--port", "0", "--tls-port", str(self._port), "--tls-auth-clients", "no")
            at += ("--tls-cert-file", certificate, "--tls-key-file", key)
        self._process = await asyncio.create_subprocess_exec(
            *("redis-server", *at, "--bind", "127.0.0.1", "--save", "", *append),
            cwd=self._directory,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(_STARTS_S), self.client() as redis:
            while True:
                with contextlib.suppress(RedisError, OSError):
                    await redis.ping()
                    return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """``kill -9``. Idempotent."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def stop(self) -> None:
        """It hangs: connections are taken by the system, and not answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> Redis:
        return Redis.from_url(self.url)


@contextlib.asynccontextmanager
async def redis_server(keeps: bool = True, tls: tuple[Path, Path] | None = None) -> AsyncIterator[RedisServer]:
    need_commands("redis-server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory), port, keeps, tls)
        await server.start()
        try:
            yield server
        finally:
            await server.kill()
