"""A server that stops tells who is there, and takes no other client in."""

from __future__ import annotations

import asyncio

from lab.sound.tones import Ear, tone
from rtc_server.client import VoiceClient
from tests.conftest import running_server
from tests.support.calls import get_json
from tests.support.leftovers import leaves_nothing
from tests.support.trouble import assert_turned_away, url_of


async def test_a_draining_server_takes_nobody_in_and_tells_who_is_there() -> None:
    """New offers are refused, running conversations go on, and the drain ends with the last of them."""
    ear = Ear()
    async with running_server("--model", "echo") as server, leaves_nothing(server):
        url = url_of(server)
        async with VoiceClient(url, tone(440), on_voice=ear) as client:
            await ear.until_voice()
            drain = asyncio.create_task(server.admission.drain(60.0))
            error = await client.wait_for("error", code="draining")
            assert error["retryable"] is True
            assert (await get_json(f"{url}/readyz")) == (503, {"status": "draining"})
            assert (await get_json(f"{url}/healthz")) == (200, {"status": "ok"})
            await assert_turned_away(url, "draining")
            await ear.hear(0.5)
            await ear.until_voice()
            assert not drain.done()
            client.send({"type": "bye"})
            await client.wait_for("disconnected", reason="bye")
            await asyncio.wait_for(drain, 30.0)


async def test_a_server_that_stops_ends_its_conversations() -> None:
    ear = Ear()
    async with running_server("--model", "echo") as server:
        async with VoiceClient(url_of(server), tone(440), on_voice=ear) as client:
            await ear.until_voice()
            await server.stop(0.0)
            await client.wait_for("disconnected", reason="server_shutdown")
            await asyncio.wait_for(client.closed.wait(), 10)
            assert client.events[-1]["type"] == "disconnected"
        assert len(server.registry) == 0
