"""A server that is full or overloaded says so, and takes the next client when it can."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import aiohttp
import pytest

from lab.sound.tones import tone
from lab.waiting import until
from rtc_server.audio import FloatArray
from rtc_server.client import OfferRefused, VoiceClient
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import BoolArray, RowOutput
from rtc_server.models.echo import EchoModel
from tests.conftest import running_server, server_with
from tests.support.calls import assert_serves, get_json, offering
from tests.support.fake_models import PagedModel
from tests.support.leftovers import leaves_nothing
from tests.support.trouble import assert_turned_away, url_of


async def test_a_full_server_says_so_and_takes_the_next_when_one_leaves() -> None:
    async with (
        running_server("--model", "echo", "--echo-slots", "2") as server,
        leaves_nothing(server),
        VoiceClient(url_of(server)) as first,
        VoiceClient(url_of(server)) as second,
    ):
        await asyncio.gather(first.wait_for("connected"), second.wait_for("connected"))
        await assert_turned_away(url_of(server), "server_full")
        assert len(server.registry) == 2
        first.send({"type": "bye"})
        await first.wait_for("disconnected", reason="bye")
        await until(lambda: len(server.registry) == 1, "a free slot")
        await assert_serves(url_of(server))
        assert not second.closed.is_set()


async def test_a_server_without_memory_for_another_is_full() -> None:
    """Although it has slots; and a conversation that begins anew keeps its own."""
    links = {"paged": lambda: LocalLink(lambda: PagedModel(4, pages=600, most=400))}
    async with server_with(links) as server, leaves_nothing(server):
        async with VoiceClient(url_of(server)) as first:
            await first.wait_for("connected")
            assert not server.engines["paged"].has_room
            await assert_turned_away(url_of(server), "server_full")
            first.send({"type": "reset"})
            await first.wait_for("state", reason="reset")
            _, status = await get_json(f"{url_of(server)}/status")
            assert status["engines"]["paged"]["pages"]["total"] == 600
        await until(lambda: server.engines["paged"].has_room, "what the engine says of its memory")
        await assert_serves(url_of(server))


async def test_no_more_sessions_than_allowed() -> None:
    async with (
        running_server("--model", "echo", "--max-sessions", "1") as server,
        VoiceClient(url_of(server)) as client,
    ):
        await client.wait_for("connected")
        with pytest.raises(OfferRefused) as refused:
            await VoiceClient(url_of(server)).__aenter__()
        assert (refused.value.status, refused.value.code) == (503, "server_full")


async def test_a_crowd_at_the_door_gets_every_slot_and_not_one_more() -> None:
    """Twelve offers at once for four slots."""
    async with running_server("--model", "echo", "--echo-slots", "4") as server, leaves_nothing(server):
        async with contextlib.AsyncExitStack() as stack:
            bodies = [await stack.enter_async_context(offering()) for _ in range(12)]
            http = await stack.enter_async_context(aiohttp.ClientSession())

            async def offer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
                async with http.post(f"{url_of(server)}/api/offer", json=body) as response:
                    return response.status, await response.json()

            answers = await asyncio.gather(*map(offer, bodies))
            assert sorted(status for status, _ in answers) == [201] * 4 + [503] * 8
            assert {body["error"]["code"] for status, body in answers if status == 503} == {"server_full"}
            for status, body in answers:
                if status == 201:
                    await http.delete(f"{url_of(server)}/api/sessions/{body['session']}")
        await asyncio.gather(*(assert_serves(url_of(server)) for _ in range(4)))


class SlowModel(EchoModel):
    """An echo whose steps take as long as they are told to."""

    step_s = 0.01

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        time.sleep(self.step_s)
        return super().step(pcm, active)


async def test_overload_is_refused_at_the_door_and_ends_with_those_who_made_it() -> None:
    """Steps that take too long: those who talk go on, no other comes in; an empty server takes the next."""
    links = {"echo": lambda: LocalLink(lambda: SlowModel(4))}
    async with server_with(links, "--max-step-ms", "5") as server, leaves_nothing(server):
        async with VoiceClient(url_of(server), tone(440)) as client:
            await client.wait_for("connected")
            await until(lambda: server.engines["echo"].step_p50_ms is not None, "a median of the steps")
            await assert_turned_away(url_of(server), "overloaded")
            assert not client.closed.is_set()
        await until(lambda: not len(server.registry), "the session's end")
        await assert_serves(url_of(server))
