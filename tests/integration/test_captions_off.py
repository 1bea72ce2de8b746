"""A dialogue that has no captions, takes nothing of the engine that would write them."""

from __future__ import annotations

import aiohttp
import pytest

from rtc_server.client import VoiceClient
from tests.integration.test_captions import captioned, captions, url_of
from tests.support.calls import get_json

pytestmark = pytest.mark.slow


async def test_without_them_a_dialogue_takes_no_slot_of_the_transcriber() -> None:
    """By the server's setting, by the client's, and for protocols that have no place for them."""
    async with captioned("--captions", "off") as server:
        async with VoiceClient(url_of(server)) as client:
            await client.wait_for("stats")
            assert (captions(client), server.engines["transcribe"].slots_used) == ([], 0)
        _, config = await get_json(f"{url_of(server)}/api/config")
        assert [each["captions"] for each in config["services"]] == [False] * 4
        _, status = await get_json(f"{url_of(server)}/status")
        assert status["captions"] is None
    async with captioned() as server, aiohttp.ClientSession() as http:
        async with VoiceClient(url_of(server), options={"captions": False}) as client:
            await client.wait_for("stats")
            async with http.ws_connect(f"{url_of(server)}/api/chat") as socket:
                assert (await socket.receive()).data == b"\x00"
                assert server.engines["dialogue"].slots_used == 2
                assert (captions(client), server.engines["transcribe"].slots_used) == ([], 0)
        _, config = await get_json(f"{url_of(server)}/api/config")
        assert [each["captions"] for each in config["services"]] == [True, False, False, False]
