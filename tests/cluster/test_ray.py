"""Engines that a pool starts on a Ray cluster: placed, replaced when they are killed, stopped when they are not used.

All is real but for the GPUs: a head, two nodes, the pool, the engines and a media server.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from lab.engine_process import key_file
from lab.pool_process import PoolProcess, hosted_engines, pool_process
from lab.ray_cluster import RayCluster, environment, ray_cluster
from lab.serving import started
from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.config import Settings
from rtc_server.engine.supervisor import EngineState
from tests.conftest import ON_ONE_LOOP
from tests.support.missing import skip_but_in_ci
from tests.support.script import Speaker
from tests.support.trouble import assert_turned_away, has_failed, url_of

if importlib.util.find_spec("ray") is None:
    skip_but_in_ci("needs the package ray: pip install 'rtc-server[cluster]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), ON_ONE_LOOP]
PATIENCE_S = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ray() -> AsyncIterator[RayCluster]:
    async with ray_cluster(nodes=2) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def pool_on(ray: RayCluster, directory: Path, *options: str, listen: str) -> AsyncIterator[PoolProcess]:
    """Of engines for one client each, which take a GPU each."""
    of_engines = ("--services", "echo", "--model", "echo", "--echo-slots", "1", "--gpus", "1")
    arguments = ("--ray-address", ray.address, *of_engines, *options)
    async with pool_process(directory, *arguments, listen=listen, environment=environment()) as pool:
        await pool.wait_ready()
        yield pool


@contextlib.asynccontextmanager
async def media_server(pool_at: str, directory: Path) -> AsyncIterator[Server]:
    key = str(key_file(directory))
    own: dict[str, Any] = {"pool": pool_at, "pool_services": ("echo",), "cluster_key": key}
    server = Server(Settings(port=0, model="echo", drain_s=0, max_lag_ms=100_000, **own))
    async with started(server):
        yield server


@contextlib.asynccontextmanager
async def connected(server: Server) -> AsyncIterator[VoiceClient]:
    """A client that waits until there is an engine."""
    await until(lambda: server.engines["echo"].has_room, "an engine", PATIENCE_S)
    async with VoiceClient(url_of(server), Speaker(), on_voice=Ear()) as client:
        await client.wait_for("connected")
        yield client


async def test_from_zero_to_engines_and_back(ray: RayCluster, tmp_path: Path) -> None:
    """A client that comes has one started, the next one has a second one on another machine, and when they have gone
    the engines go as well."""
    async with pool_on(ray, tmp_path, "--max", "2", "--idle-s", "2", listen="127.0.0.1:0") as pool:  # noqa: SIM117
        async with media_server(pool.address, tmp_path) as server:
            assert hosted_engines(tmp_path) == []
            await assert_turned_away(url_of(server), "engine_starting")
            async with connected(server):
                (engine,) = hosted_engines(tmp_path)
                assert engine.nice() <= psutil.Process().nice(), "it gives way to nothing"
                await assert_turned_away(url_of(server), "engine_starting")
                async with connected(server):
                    both = hosted_engines(tmp_path)
                    assert len(both) == 2
                    assert len({each.environ()["RAY_RAYLET_PID"] for each in both}) == 2, "one GPU, one engine"
                    await assert_turned_away(url_of(server), "server_full")
            await until(lambda: hosted_engines(tmp_path) == [], "they are stopped", PATIENCE_S)
            retry_after_s = await assert_turned_away(url_of(server), "engine_starting")
            assert retry_after_s < 30, "measured"
    await ray.clear()


@pytest.mark.parametrize("token", ["", "0" * 64], ids=["none", "another"])
async def test_a_pool_without_rays_token_is_refused_and_says_so(ray: RayCluster, tmp_path: Path, token: str) -> None:
    stranger = {**environment(), "RAY_AUTH_TOKEN": token, "HOME": str(tmp_path)}
    arguments = ("--ray-address", ray.address, "--services", "echo", "--model", "echo")
    async with pool_process(tmp_path, *arguments, environment=stranger) as pool:
        assert await pool.wait_exit(PATIENCE_S) == 1
        assert any("cannot be used" in line for line in pool.log), pool.log
        assert not any("Traceback" in line for line in pool.log), pool.log


async def test_what_is_killed_is_replaced(ray: RayCluster, tmp_path: Path) -> None:
    """An engine, and what runs it: its conversations are told at once, and the next one has another engine."""
    async with pool_on(ray, tmp_path, "--min", "1", listen="127.0.0.1:0") as pool:  # noqa: SIM117
        async with media_server(pool.address, tmp_path) as server:
            killed = []
            for victim in ("engine", "its host"):
                async with connected(server) as client:
                    (engine,) = hosted_engines(tmp_path)
                    killed.append(engine)
                    (engine if victim == "engine" else engine.parent()).kill()
                    await until(lambda client=client: has_failed(client), f"{victim} is missed", 15)
                    await until(
                        lambda engine=engine: engine not in hosted_engines(tmp_path), "it ends with its host", 15
                    )
            async with connected(server) as client:
                assert not {each.pid for each in hosted_engines(tmp_path)} & {engine.pid for engine in killed}
                assert not has_failed(client)
    await ray.clear()


async def test_a_pool_that_is_killed_leaves_its_engines_and_finds_them_again(ray: RayCluster, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(pool_on(ray, tmp_path, "--min", "1", listen="127.0.0.1:0"))
        server = await stack.enter_async_context(media_server(first.address, tmp_path))
        talking = await stack.enter_async_context(connected(server))
        (engine,) = hosted_engines(tmp_path)
        os.kill(first.process.pid, signal.SIGKILL)
        await first.process.wait()
        async with pool_on(ray, tmp_path, "--max", "1", "--idle-s", "2", listen=first.address) as again:
            await assert_turned_away(url_of(server), "server_full")
            assert hosted_engines(tmp_path) == [engine]
            assert not has_failed(talking)
            assert not talking.closed.is_set()
            await talking.close()
            await until(lambda: hosted_engines(tmp_path) == [], "it is its pool's again", PATIENCE_S)
            again.process.send_signal(signal.SIGTERM)
            assert await again.wait_exit() == 0
    await ray.clear()


async def test_a_machine_that_is_gone_is_not_waited_for(ray: RayCluster, tmp_path: Path) -> None:
    """Another engine is started when nothing has been heard of it for three seconds. The cluster has a machine
    less from now on."""
    async with pool_on(ray, tmp_path, "--min", "1", listen="127.0.0.1:0") as pool:  # noqa: SIM117
        async with media_server(pool.address, tmp_path) as server:
            async with connected(server):
                (engine,) = hosted_engines(tmp_path)
                host = engine.parent()
                assert host is not None
                for pid in (int(engine.environ()["RAY_RAYLET_PID"]), host.pid):
                    os.kill(pid, signal.SIGKILL)
                await until(lambda: engine not in hosted_engines(tmp_path), "it goes with its machine")
            await until(lambda: server.engines["echo"].state is not EngineState.READY, "it is missed")
            async with connected(server):
                (another,) = hosted_engines(tmp_path)
                assert another.pid != engine.pid
    await ray.clear()


async def test_when_the_head_is_killed_conversations_go_on(ray: RayCluster, tmp_path: Path) -> None:
    """Its engines take new ones as well, and a pool that is started by hand in its place knows them. The last test
    here: there is no cluster from now on."""
    async with contextlib.AsyncExitStack() as stack:
        options = ("--min", "1", "--echo-slots", "2")
        first = await stack.enter_async_context(pool_on(ray, tmp_path, *options, listen="127.0.0.1:0"))
        server = await stack.enter_async_context(media_server(first.address, tmp_path))
        talking = await stack.enter_async_context(connected(server))
        (engine,) = hosted_engines(tmp_path)
        for process in ray.head():
            process.kill()
        async with connected(server):
            assert not has_failed(talking)
        await first.kill()
        async with pool_process(tmp_path, listen=first.address) as again:
            await again.wait_ready()
            newcomer = await stack.enter_async_context(media_server(first.address, tmp_path))
            async with connected(newcomer):
                assert hosted_engines(tmp_path) == [engine]
        assert not has_failed(talking)
        assert not talking.closed.is_set()
