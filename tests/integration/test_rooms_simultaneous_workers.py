"""Rooms of a server with several media processes, which share the one model that translates while one speaks: its rows,
and what becomes of them when it, or one of the processes, dies. The model is a tiny random Hibiki."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from lab.media_processes import worker_of
from lab.waiting import until_told
from rtc_server.audio import FloatArray
from rtc_server.client import RoomClient, RoomMessage
from rtc_server.models.tiny import write_tiny_checkpoint
from tests.conftest import ON_ONE_LOOP
from tests.support.calls import get_json
from tests.support.rooms import api_at, create
from tests.support.server_process import ServerProcess, server_process
from tests.support.workers import media_processes, shared_engines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), ON_ONE_LOOP]

OPTIONS = (
    *("--model", "echo", "--rooms", "on", "--translate", "none", "--workers", "2", "--vad", "off"),
    *("--simultaneous-pairs", "fr=en", "--simultaneous-slots", "2", "--device", "cpu", "--threads", "1"),
    *("--allow-slow", "--max-lag-ms", "10000", "--max-step-ms", "10000", "--offers-per-minute", "6000"),
)


@contextlib.asynccontextmanager
async def two_processes(directory: Path) -> AsyncIterator[ServerProcess]:
    checkpoint = write_tiny_checkpoint(directory / "tiny-hibiki", "hibiki")
    async with server_process(*OPTIONS, "--simultaneous", str(checkpoint)) as server:
        await server.wait_ready()
        await until_told(lambda: rows_are(server, {"0": 0, "1": 0}), "both processes")
        yield server


async def lanes_of(server: ServerProcess) -> dict[str, Any]:
    """What is told of the model, and by each process."""
    _, told = await get_json(f"{server.url}/status")
    return {"all": told["simultaneous"], **{index: each["simultaneous"] for index, each in told["workers"].items()}}


async def rows_are(server: ServerProcess, rows: dict[str, int]) -> bool:
    """Whether so many are taken by each process, and its engine can be asked."""
    told = await lanes_of(server)
    total = told.pop("all")["slots_used"] if len(told) == len(rows) + 1 else None
    used = {index: each["slots_used"] for index, each in told.items() if each["state"] == "ready"}
    return used == rows and total == sum(rows.values())


async def room_in_each(server: ServerProcess) -> dict[int, str]:
    rooms: dict[int, str] = {}
    async with api_at(server.url) as http:

        async def one_in_each() -> bool:
            room = await create(http)
            rooms[worker_of(room)] = room
            return len(rooms) == 2

        await until_told(one_in_each)
    return rooms


class Room:
    """One speaks French in it, without end, and one listens to English."""

    def __init__(self, server: ServerProcess, room: str) -> None:
        self._random = np.random.default_rng(0)
        self._luc = RoomClient(f"{server.url}/", room, "Luc", "fr", self._speaking)
        self._ann = RoomClient(f"{server.url}/", room, "Ann", "en")

    def _speaking(self, samples: int) -> FloatArray:
        return self._random.normal(0, 0.1, samples).astype(np.float32)

    @contextlib.asynccontextmanager
    async def joined(self) -> AsyncIterator[Room]:
        async with self._luc, self._ann:
            yield self

    async def until_read(self, grows: bool, message: str = "", other_than: str = "") -> str:
        """Until Ann reads a message that grows, or does not any more: that one, or any; its id."""
        async for event in self._ann.events():
            if not isinstance(event, RoomMessage) or event.grows != grows or event.id == other_than:
                continue
            if message in ("", event.id):
                return event.id
        raise AssertionError("the room is over")


async def test_speakers_in_both_processes_have_rows_of_one_model(tmp_path: Path) -> None:
    """Which, when it is killed, comes back for both."""
    async with two_processes(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        (engine,) = shared_engines(server)
        told = await lanes_of(server)
        assert {(each["model"], each["slots"]) for each in told.values()} == {("tiny-hibiki", 2)}
        ids = (await room_in_each(server)).values()
        rooms = [await stack.enter_async_context(Room(server, each).joined()) for each in ids]
        begun = [await room.until_read(grows=True) for room in rooms]
        assert await rows_are(server, {"0": 1, "1": 1})
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/metrics") as response:
            text = await response.text()
        for worker in "01":
            assert f'rtc_slots_used{{service="simultaneous",worker="{worker}"}} 1.0' in text
        engine.kill()
        for room, message in zip(rooms, begun, strict=True):
            await room.until_read(grows=False, message=message)
            await room.until_read(grows=True, other_than=message)
        await until_told(lambda: rows_are(server, {"0": 1, "1": 1}), "their rows")


async def test_rows_of_a_process_that_is_killed_are_another_speakers(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        ids = await room_in_each(server)
        for _ in range(2):
            await stack.enter_async_context(Room(server, ids[0]).joined())
        await until_told(lambda: rows_are(server, {"0": 2, "1": 0}), "all rows")
        room = await stack.enter_async_context(Room(server, ids[1]).joined())
        media_processes(server)[0].kill()
        await room.until_read(grows=True)
        await until_told(lambda: rows_are(server, {"0": 0, "1": 1}), "a row")
