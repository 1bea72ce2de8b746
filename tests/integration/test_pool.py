"""Media servers whose engines are in a pool: what clients see of it. All programs are real."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.engine_process import engine_process, key_file
from lab.pool_process import pool_process
from lab.serving import started
from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import OfferRefused, VoiceClient
from rtc_server.cluster.messages import Gone
from rtc_server.cluster.policy import Terms
from rtc_server.cluster.pooled import PooledEngine
from rtc_server.config import Settings
from tests.cluster.test_pool import Shelf
from tests.conftest import ON_ONE_LOOP
from tests.support.calls import get_json
from tests.support.pools import Node, pool
from tests.support.script import Speaker
from tests.support.trouble import assert_turned_away, has_failed, url_of

pytestmark = [pytest.mark.slow, ON_ONE_LOOP]
ECHO = ("--engine-service", "echo", "--echo-slots", "1")
PICO = ("--model", "pico", "--slots", "2", "--allow-slow")


@contextlib.asynccontextmanager
async def media_server(pool_at: str, directory: Path, **settings: Any) -> AsyncIterator[Server]:
    key = str(key_file(directory))
    settings = {"pool_services": ("echo",), "model": "echo", "stt": "none", "max_lag_ms": 100_000, **settings}
    server = Server(Settings(port=0, pool=pool_at, cluster_key=key, drain_s=0, **settings))
    async with started(server):
        yield server


def call(server: Server) -> VoiceClient:
    return VoiceClient(url_of(server), Speaker(), on_voice=Ear())


async def test_engines_that_are_started_by_hand_are_found_and_taken_in_turn(tmp_path: Path) -> None:
    """A media server knows one address. Its clients go where there is room; an engine that is killed costs its own what
    it remembers, and they go on at the other when that has room."""
    async with pool_process(tmp_path) as here, contextlib.AsyncExitStack() as stack:
        await here.wait_ready()
        options = (*ECHO, "--pool", here.address, "--engine-name")
        engines = [
            await stack.enter_async_context(engine_process(tmp_path, *options, f"{name}/1")) for name in ("one", "two")
        ]
        for engine in engines:
            await engine.wait_ready()
        server = await stack.enter_async_context(media_server(here.address, tmp_path))
        await until(lambda: server.engines["echo"].info and server.engines["echo"].info.slots == 2)
        first, second = call(server), call(server)
        for client in (first, second):
            await stack.enter_async_context(client)
            await client.wait_for("connected")
        await assert_turned_away(url_of(server), "server_full")
        await engines[0].kill()
        async with Node.at(here.address) as host:  # what runs an engine on a machine says so at once
            await host.say(Gone("one/1"))
            await until(lambda: any(has_failed(client) for client in (first, second)))
        lost, left = (first, second) if has_failed(first) else (second, first)
        assert not has_failed(left)
        await assert_turned_away(url_of(server), "server_full")
        await left.close()
        await lost.wait_for("state", reason="restarted")
        await lost.close()
        await until(lambda: server.engines["echo"].has_room)
        async with call(server) as third:
            await third.wait_for("connected")


async def test_services_of_one_pool_have_engines_of_their_own(tmp_path: Path) -> None:
    """That one has no slot left, or no engine any more, is nothing to the other."""
    async with pool_process(tmp_path) as here, contextlib.AsyncExitStack() as stack:
        await here.wait_ready()
        at = ("--pool", here.address)
        echo = await stack.enter_async_context(engine_process(tmp_path, *ECHO, *at, "--engine-name", "echo/1"))
        pico = await stack.enter_async_context(engine_process(tmp_path, *PICO, *at))
        for engine in (echo, pico):
            await engine.wait_ready()
        server = await stack.enter_async_context(
            media_server(here.address, tmp_path, pool_services=("dialogue", "echo"), model="pico", vad="off")
        )
        await until(lambda: all(server.engines[service].has_room for service in ("dialogue", "echo")), "both engines")
        repeats, talks = VoiceClient(url_of(server), service="echo"), VoiceClient(url_of(server), Speaker())
        for client in (repeats, talks):
            await stack.enter_async_context(client)
            await client.wait_for("connected")
        assert {service: engine.slots_used for service, engine in server.engines.items()} == {"dialogue": 1, "echo": 1}
        with pytest.raises(OfferRefused) as refused:
            await VoiceClient(url_of(server), service="echo").connect()
        assert refused.value.code == "server_full"
        assert server.engines["dialogue"].has_room
        await echo.kill()
        async with Node.at(here.address) as host:
            await host.say(Gone("echo/1"))
            await until(lambda: has_failed(repeats))
        assert server.engines["dialogue"].has_room
        assert not server.engines["echo"].ready
        before = frames_of(server, "dialogue")
        await until(lambda: frames_of(server, "dialogue") > before + 10, "frames that go on")
        assert not has_failed(talks)


def frames_of(server: Server, service: str) -> float:
    """That went to its engine and came back."""
    return server.metrics.registry.get_sample_value("rtc_frame_seconds_count", {"service": service}) or 0.0


async def test_a_pool_that_is_killed_and_comes_back_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it after a minute, by the media server's clock: the engine that it knew takes new ones until then."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(pool_process(tmp_path))
        await first.wait_ready()
        options = ("--engine-service", "echo", "--echo-slots", "2", "--pool", first.address)
        engine = await stack.enter_async_context(engine_process(tmp_path, *options))
        await engine.wait_ready()
        server = await stack.enter_async_context(media_server(first.address, tmp_path))
        await until(lambda: server.engines["echo"].has_room)
        talking = await stack.enter_async_context(call(server))
        await talking.wait_for("connected")
        await first.kill()
        pooled = server.engines["echo"]
        assert isinstance(pooled, PooledEngine)
        for part in (pooled, pooled.directory):
            monkeypatch.setattr(part, "_clock", lambda: time.monotonic() + 60.0)
        async with call(server) as another:
            await another.wait_for("connected")
        async with pool_process(tmp_path, listen=first.address) as again:
            await again.wait_ready()
            async with media_server(first.address, tmp_path) as newcomer:
                await until(lambda: newcomer.engines["echo"].has_room)
                async with call(newcomer) as client:
                    await client.wait_for("connected")
            again.process.send_signal(signal.SIGTERM)
            assert await again.wait_exit() == 0
        assert not talking.closed.is_set()


async def test_a_media_server_of_a_pool_without_engines_is_ready_and_tells_when_to_come_back(tmp_path: Path) -> None:
    """Its readiness is what brings it the clients for whom an engine is started."""
    shelf = Shelf()
    async with pool({"echo": Terms(0, 1)}, shelf) as here, media_server(here.address, tmp_path) as server:
        url = url_of(server)
        assert (await get_json(f"{url}/readyz"))[0] == 200
        retry_after_s = await assert_turned_away(url, "engine_starting")
        assert 20 < retry_after_s <= 30
        await until(lambda: shelf.started == 1)
        options = ("--engine-name", "echo-1/1", "--pool", here.address)
        async with engine_process(tmp_path, *ECHO, *options):
            await server.engines["echo"].wait_ready()
            async with call(server) as client:
                await client.wait_for("connected")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--min", "3"), "--max of dialogue"),
        (("--pool-listen", "192.0.2.1:1"), "Cannot listen"),
    ],
)
async def test_what_cannot_be_started_says_why(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    async with pool_process(tmp_path, *options) as here:
        assert await here.wait_exit() == 1
        assert any(said in line for line in here.log), here.log
