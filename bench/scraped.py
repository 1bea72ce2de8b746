"""What a server says of itself in ``/metrics``."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


async def samples_of(http: aiohttp.ClientSession, url: str) -> list[Sample]:
    """All there are now. ``url``: of the server."""
    async with http.get(f"{url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    return [sample for family in families for sample in family.samples]
