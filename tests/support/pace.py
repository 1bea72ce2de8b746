"""The pace of a microphone, and what came faster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rtc_server.app import Server
from rtc_server.audio import FRAME_MS


async def every_frame() -> AsyncIterator[None]:
    """Comes each 80 ms, the first time at once; one that was late does not make those behind it later."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        yield
        due += FRAME_MS / 1000
        await asyncio.sleep(max(0.0, due - loop.time()))


def dropped_s(server: Server, endpoint: str) -> float:
    """How much audio has come faster than it lasts, and was dropped, as ``/metrics`` says it."""
    labels = {"endpoint": endpoint}
    return server.metrics.registry.get_sample_value("rtc_audio_dropped_seconds_total", labels) or 0.0
