"""A way over TCP that a test breaks and mends: nothing goes through meanwhile, and no connection is closed by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class BreakableWay:
    """Passes on what comes to :attr:`address`, to ``far``, both HOST:PORT. ``said``: all that came to it."""

    def __init__(self, far: str) -> None:
        self.address = ""
        self.said = bytearray()
        self._far = far.rpartition(":")
        self._whole = asyncio.Event()
        self._whole.set()
        self._writers: list[asyncio.StreamWriter] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, far: str) -> AsyncIterator[BreakableWay]:
        way = cls(far)
        server = await asyncio.start_server(way._serve, "127.0.0.1", 0)
        way.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield way
        finally:
            server.close()
            way._whole.set()
            for writer in way._writers:
                writer.transport.abort()

    async def broken_for(self, seconds: float) -> None:
        self._whole.clear()
        await asyncio.sleep(seconds)
        self._whole.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        host, _, port = self._far
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        self._writers.append(far_writer)
        await asyncio.gather(self._copy(reader, far_writer, self.said), self._copy(far_reader, writer, bytearray()))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                record += data
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
