"""A client for programs that comes back into its conversation, as the page does by itself."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

from rtc_server.client import OfferRefused, VoiceClient

_AGAIN_S: Final = 0.1


async def come_back(client: VoiceClient, patience_s: float = 60.0) -> None:
    """Ask until a server lets it in. Raises TimeoutError."""
    async with asyncio.timeout(patience_s):
        while True:
            try:
                await client.resume()
            except (OfferRefused, aiohttp.ClientError):
                await asyncio.sleep(_AGAIN_S)
            else:
                return
