"""A server in this process, for as long as it is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from rtc_server.app import Server


@contextlib.asynccontextmanager
async def started(server: Server) -> AsyncIterator[Server]:
    """Ready inside; stopped without grace at the end."""
    await server.start()
    try:
        await server.wait_ready()
        yield server
    finally:
        await server.stop(0.0)
