"""A media node that is told to end sends its clients to another one; what a client leaves that has enough of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.engine_process import EngineProcess, engine_process, key_file
from lab.network.front import Front
from lab.serving import started
from lab.sound.tones import VOICED_DBFS, Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.config import Settings
from rtc_server.webrtc.transceivers import LeanPeerConnection
from tests.conftest import ON_ONE_LOOP
from tests.support.leftovers import leaves_nothing

pytestmark = ON_ONE_LOOP


@contextlib.asynccontextmanager
async def echo_node(name: str, engine: EngineProcess, directory: Path) -> AsyncIterator[Server]:
    """However late its loop is on a machine with other work."""
    at, key = (f"echo={engine.address}",), str(key_file(directory))
    settings = Settings(port=0, node=name, engine_at=at, cluster_key=key, model="echo", max_lag_ms=100_000)
    async with started(Server(settings)) as server:
        yield server


async def test_a_client_goes_by_itself_to_another_node_when_its_own_stops(tmp_path: Path) -> None:
    """It hears the tone at once, misses no event, and its former node has nothing left of it."""
    ear = Ear()
    async with contextlib.AsyncExitStack() as stack:
        options = ("--engine-service", "echo", "--echo-slots", "2")
        engine = await stack.enter_async_context(engine_process(tmp_path, *options))
        await engine.wait_ready()
        nodes = {name: await stack.enter_async_context(echo_node(name, engine, tmp_path)) for name in "ab"}
        front = Front({name: f"127.0.0.1:{server.port}" for name, server in nodes.items()})
        port = await stack.enter_async_context(front.listening("127.0.0.1", 0))
        client = await stack.enter_async_context(VoiceClient(f"http://127.0.0.1:{port}", tone(440), on_voice=ear))
        await ear.until_level(above=VOICED_DBFS, window_s=0.5)
        first, former = client.pc, client.session
        name = str(former).partition("-")[0]
        await nodes[name].admission.drain(30.0)
        assert len(nodes[name].registry) == 0
        await until(lambda: client.session != former and first.connectionState == "closed", "it has gone")
        await client.wait_for("connected", session=client.session)
        assert not client.closed.is_set()
        since = ear.samples
        await until(lambda: ear.samples > since + 24_000, "a second of the voice by the other node")
        await ear.until_level(above=VOICED_DBFS, window_s=0.5)
        assert not [event for event in client.events if event["type"] in ("error", "disconnected")]


def refused(server: Server) -> float:
    return server.metrics.registry.get_sample_value("rtc_offers_refused_total", {"code": "draining"}) or 0.0


async def test_a_client_that_hangs_up_while_no_other_node_answers_leaves_nothing(tmp_path: Path) -> None:
    """It is told to go, asks in vain, and has enough of it."""
    async with engine_process(tmp_path, "--engine-service", "echo", "--echo-slots", "1") as engine:
        await engine.wait_ready()
        async with echo_node("a", engine, tmp_path) as server:
            await until(lambda: server.engines["echo"].has_room, "the engine is known", 30.0)
            async with leaves_nothing(server):
                url = f"http://127.0.0.1:{server.port}"
                async with VoiceClient(url, tone(440)) as client:
                    await client.wait_for("connected")
                    draining = asyncio.create_task(server.admission.drain(30.0), name="drain")
                    await client.wait_for("moving")
                    session = client.session
                    await until(lambda: refused(server) > 0, "it asks")
                    assert client.session == session
                await draining


async def test_a_client_that_hangs_up_while_a_connection_is_being_closed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one by which it asked in vain: what is cancelled then is the asking, and not the closing."""
    closing, go_on = asyncio.Event(), asyncio.Event()
    close = LeanPeerConnection.close

    async def close_in_two_steps(pc: LeanPeerConnection) -> None:
        closing.set()
        await go_on.wait()
        await close(pc)

    async with engine_process(tmp_path, "--engine-service", "echo", "--echo-slots", "1") as engine:
        await engine.wait_ready()
        async with echo_node("a", engine, tmp_path) as server:
            await until(lambda: server.engines["echo"].has_room, "the engine is known", 30.0)
            async with leaves_nothing(server):
                client = VoiceClient(f"http://127.0.0.1:{server.port}", tone(440))
                await client.connect()
                await client.wait_for("connected")
                monkeypatch.setattr(LeanPeerConnection, "close", close_in_two_steps)
                draining = asyncio.create_task(server.admission.drain(30.0), name="drain")
                await asyncio.wait_for(closing.wait(), 30.0)
                hanging_up = asyncio.create_task(client.close(), name="hang-up")
                await until(lambda: "client-move" not in {task.get_name() for task in asyncio.all_tasks()}, "no asking")
                go_on.set()
                await hanging_up
                await draining
