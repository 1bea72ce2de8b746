"""A server whose rooms have a model that translates while one speaks: what listeners hear and read, and what is told of
it. The model is a tiny random Hibiki."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import pytest_asyncio

from lab.serving import started
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import level_dbfs
from rtc_server.client import RoomClient, RoomMessage, create_room, list_rooms
from rtc_server.client.microphone import Microphone
from rtc_server.config import Settings
from rtc_server.engine.engine import Engine
from rtc_server.models.tiny import write_tiny_checkpoint
from tests.support.leftovers import leaves_nothing

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

FADED = 150
"""Pieces of sound after which an original that is taken away is not heard any more: some seconds."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-hibiki", "hibiki")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(checkpoint: Path) -> AsyncIterator[Server]:
    async with serving(checkpoint) as running:
        yield running


@contextlib.asynccontextmanager
async def serving(checkpoint: Path) -> AsyncIterator[Server]:
    settings = Settings(
        port=0,
        model="echo",
        translate="none",
        simultaneous=str(checkpoint),
        simultaneous_pairs=("fr=en",),
        device="cpu",
        threads=1,
        allow_slow=True,
        max_lag_ms=10_000,
        max_step_ms=10_000,
    )
    async with started(Server(settings)) as running:
        await running.wait_ready()
        yield running


@pytest.fixture
def url(server: Server) -> str:
    return url_of(server)


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/"


def speaking() -> Microphone:
    random = np.random.default_rng(0)
    return lambda samples: random.normal(0, 0.1, samples).astype(np.float32)


def engine_of(server: Server) -> Engine:
    assert server.rooms is not None
    assert server.rooms.lobby.simultaneous.engine is not None
    return server.rooms.lobby.simultaneous.engine


async def until_grown(client: RoomClient, text: str = "") -> RoomMessage:
    """The next message that grows, and has more than ``text``."""
    async for event in client.events():
        if isinstance(event, RoomMessage) and event.grows and event.text != text:
            return event
    raise AssertionError("the session is over")


async def test_what_there_is_is_told(server: Server, url: str) -> None:
    lobby = await list_rooms(url)
    assert lobby.simultaneous == lobby.pairs == [("fr", "en")]
    assert [(each.code, each.hears, each.speaks) for each in lobby.languages] == [
        ("en", False, True),
        ("fr", True, False),
    ]
    async with aiohttp.ClientSession() as http, http.get(f"{url}status") as answer:
        told = (await answer.json())["simultaneous"]
    assert (told["pairs"], told["model"], told["slots"], told["slots_used"]) == ([["fr", "en"]], "tiny-hibiki", 1, 0)


async def test_one_who_speaks_french_is_heard_and_read_in_english_while_speaking(server: Server, url: str) -> None:
    heard: list[float] = []
    engine = engine_of(server)
    room = await create_room(url, "Kitchen")
    async with leaves_nothing(server):
        async with (
            RoomClient(url, room.id, "Luc", "fr", speaking()),
            RoomClient(url, room.id, "Ann", "en", on_voice=lambda pcm: heard.append(level_dbfs(pcm))) as ann,
        ):
            event = await until_grown(ann)
            assert (event.name, event.language, event.state) == ("Luc", "fr", "pending")
            await ann.change(original="off")
            before = len(heard) + FADED
            await until(lambda: max(heard[before:], default=-100.0) > -35, "the voice, without the original")
            assert engine.slots_used == 1
            assert b'rtc_slots_used{service="simultaneous"} 1.0' in server.metrics.render()
        await until(lambda: engine.slots_used == 0, "the row")
        assert b'rtc_slots_used{service="simultaneous"} 0.0' in server.metrics.render()
    assert b'rtc_slots{service="simultaneous"} 1.0' in server.metrics.render()


async def test_a_server_that_ends_gives_lanes_its_grace_and_then_all_rows_back(checkpoint: Path) -> None:
    """And leaves no message half written."""
    async with serving(checkpoint) as server:
        url, engine = url_of(server), engine_of(server)
        room = await create_room(url, "Kitchen")
        async with RoomClient(url, room.id, "Luc", "fr", speaking()), RoomClient(url, room.id, "Ann", "en") as ann:
            begun = await until_grown(ann)
            drain = asyncio.create_task(server.admission.drain(60))
            await until(lambda: server.admission.draining, "the drain")
            await until_grown(ann, begun.text)
            assert (engine.slots_used, drain.done()) == (1, False)
            await server.admission.close()
            await drain
            assert engine.slots_used == engine.slots_asked_for == 0
            assert server.rooms is not None
            (left,) = server.rooms.lobby
            texts = [(each.renderings["en"].state, bool(each.text_in("en"))) for each in left.messages]
            assert set(texts) == {("ready", True)}
