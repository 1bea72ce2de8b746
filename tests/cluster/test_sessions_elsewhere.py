"""Requests about a session that come to another media node of its pool: they go on to the one that has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from lab.engine_process import key_file
from lab.servers import free_port
from lab.serving import started
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.cluster.fleet import FORGOTTEN_S, Fleet
from rtc_server.config import Settings
from tests.support.pools import pool
from tests.support.trouble import url_of

NOBODYS = "x" * 22


@contextlib.asynccontextmanager
async def media_node(name: str, pool_at: str, directory: Path, **more: object) -> AsyncIterator[Server]:
    """Its model is its own, and no other node's: what it has, it alone can answer for."""
    port = free_port()
    where = {"port": port, "node": name, "node_url": f"http://127.0.0.1:{port}", "pool": pool_at, **more}
    own = {"cluster_key": str(key_file(directory)), "pool_services": ("transcribe",), "model": "echo", "vad": "off"}
    async with started(Server(Settings(**{"max_lag_ms": 100_000, **where, **own}))) as server:  # type: ignore[arg-type]
        yield server


async def until_known(server: Server, process: str) -> None:
    assert server.neighbours is not None
    await until(lambda: server.neighbours._url_of(process) is not None, f"{process} is known")  # type: ignore[union-attr]


async def test_any_node_of_the_pool_answers_for_a_session_of_another(tmp_path: Path) -> None:
    """By asking it: what it says, its events as they come, a client that comes back, and its end."""
    async with (
        pool() as here,
        media_node("a", here.address, tmp_path) as owner,
        media_node("b", here.address, tmp_path) as other,
        aiohttp.ClientSession(url_of(other)) as http,
        VoiceClient(url_of(owner), service="echo") as client,
    ):
        await until_known(other, "a-0")
        await client.wait_for("connected")
        path = f"/api/sessions/{client.session}"
        async with http.get(path) as answer:
            assert (await answer.json())["session"] == client.session
        async with http.get(f"{path}/events") as answer:
            assert answer.content_type == "text/event-stream"
            client.send({"type": "reset"})
            async with asyncio.timeout(20):
                assert b'"reset"' in await answer.content.readuntil(b'reset"')
        before = client.session
        await client.resume(url_of(other))
        await client.wait_for("connected", resumed=True)
        assert client.session == before
        assert (len(owner.registry), len(other.registry)) == (1, 0)
        async with http.delete(path) as answer:
            assert answer.status == 204
        await until(lambda: not len(owner.registry), "its end")


async def test_for_one_that_is_not_there_the_answer_is_as_ever(tmp_path: Path) -> None:
    """No such session, no such node, and one that has died."""
    async with (
        pool() as here,
        media_node("b", here.address, tmp_path) as other,
        aiohttp.ClientSession(url_of(other)) as http,
    ):
        async with media_node("a", here.address, tmp_path):
            await until_known(other, "a-0")
            for session in (f"a-0-{NOBODYS}", f"a-1-{NOBODYS}", f"c-0-{NOBODYS}", f"b-0-{NOBODYS}", "a-0"):
                assert await status(http, session) == (404, "unknown_session")
        assert await status(http, f"a-0-{NOBODYS}") == (404, "unknown_session")


async def test_a_node_that_is_not_told_where_it_is_passes_nothing_on(tmp_path: Path) -> None:
    async with pool() as here, media_node("a", here.address, tmp_path, node_url="") as server:
        assert server.neighbours is None


async def status(http: aiohttp.ClientSession, session: str) -> tuple[int, str]:
    async with http.get(f"/api/sessions/{session}") as answer:
        return answer.status, (await answer.json())["error"]["code"]


def test_a_node_is_told_of_the_others_when_that_has_changed() -> None:
    fleet = Fleet({}, edition=7)
    fleet.asked(b"one", {}, 0, "a-0", "http://a")
    told = fleet.roster(0, 0).peers
    assert told is not None
    assert told.urls == {"a-0": "http://a"}
    fleet.asked(b"one", {}, 1, "a-0", "http://a")
    assert fleet.roster(1, told.edition).peers is None
    assert fleet.roster(1).peers is None, "one that passes nothing on is not told"
    fleet.asked(b"two", {}, 2, "b-0", "http://b")
    fleet.asked(b"without", {}, 2)
    told = fleet.roster(2, told.edition).peers
    assert told is not None
    assert told.urls == {"a-0": "http://a", "b-0": "http://b"}
    fleet.forget(FORGOTTEN_S + 1.5)
    told = fleet.roster(62, told.edition).peers
    assert told is not None
    assert told.urls == {"b-0": "http://b"}
