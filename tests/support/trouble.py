"""What tests of a server in trouble ask of it."""

from __future__ import annotations

import aiohttp

from rtc_server.app import Server
from rtc_server.client import VoiceClient
from tests.support.calls import offering


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def assert_turned_away(url: str, code: str) -> None:
    """A good offer is refused for now, and told when to come again."""
    async with (
        offering() as body,
        aiohttp.ClientSession() as http,
        http.post(f"{url}/api/offer", json=body) as response,
    ):
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        error = (await response.json())["error"]
        assert (error["code"], error["retryable"]) == (code, True)


def count_of(client: VoiceClient, kind: str) -> int:
    return sum(event["type"] == kind for event in client.events)
