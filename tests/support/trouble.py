"""What tests of a server in trouble ask of it."""

from __future__ import annotations

import aiohttp

from rtc_server.app import Server
from rtc_server.client import VoiceClient
from tests.support.calls import offering


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def assert_turned_away(url: str, code: str) -> int:
    """A good offer is refused for now, and told in how many seconds to come again, which is returned."""
    async with (
        offering() as body,
        aiohttp.ClientSession() as http,
        http.post(f"{url}/api/offer", json=body) as response,
    ):
        assert response.status == 503
        retry_after_s = int(response.headers["Retry-After"])
        assert retry_after_s > 0
        error = (await response.json())["error"]
        assert (error["code"], error["retryable"]) == (code, True)
        return retry_after_s


def count_of(client: VoiceClient, kind: str) -> int:
    return sum(event["type"] == kind for event in client.events)


def has_failed(client: VoiceClient) -> bool:
    """Whether it was told that its engine is gone."""
    return any(event["type"] == "error" and event["code"] == "engine_failed" for event in client.events)
