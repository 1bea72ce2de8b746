"""The pace of a microphone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rtc_server.audio import FRAME_MS


async def every_frame() -> AsyncIterator[None]:
    """Comes each 80 ms, the first time at once; one that was late does not make those behind it later."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        yield
        due += FRAME_MS / 1000
        await asyncio.sleep(max(0.0, due - loop.time()))
