"""A proxy that knows nothing of what it passes on; ``python -m tests.support.tcp_forward LISTEN:PORT TO:PORT ...``.

A connection goes to the first address of those it is given at which something listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _connect(to: Sequence[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    for address in to:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(host, int(port))
    return None


@contextlib.asynccontextmanager
async def forwarding(listen: str, to: Sequence[str]) -> AsyncIterator[int]:
    """Listens at ``listen``, HOST:PORT; the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await _connect(to)
        if far is None:
            writer.close()
            return
        await asyncio.gather(_copy(reader, far[1]), _copy(far[0], writer))

    host, _, port = listen.rpartition(":")
    async with await asyncio.start_server(serve, host, int(port)) as server:
        yield server.sockets[0].getsockname()[1]


async def main(listen: str, *to: str) -> None:
    async with forwarding(listen, to):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
