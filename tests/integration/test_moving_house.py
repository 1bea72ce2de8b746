"""A conversation whose engine or media node is told to end goes on at another, in the middle of a sentence."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.engine_process import EngineProcess, engine_process, key_file
from lab.network.front import Front
from lab.pico.phrases import NUMBERS
from lab.pool_process import pool_process
from lab.serving import started
from lab.sound.tones import VOICED_DBFS, Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.config import Settings
from rtc_server.webrtc.transceivers import LeanPeerConnection
from tests.conftest import ON_ONE_LOOP
from tests.support.calls import text_of
from tests.support.leftovers import leaves_nothing
from tests.support.script import Speaker

pytestmark = [pytest.mark.alone, ON_ONE_LOOP, pytest.mark.timeout(300)]
PICO = ("--model", "pico", "--slots", "1", "--allow-slow", "--drain-s", "240")


async def test_the_model_counts_on_while_its_engine_is_told_to_end(tmp_path: Path) -> None:
    """No number is missing and none comes twice, and its client is told nothing; the engine ends by itself, long before
    its conversation does."""
    async with contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(pool_process(tmp_path))
        await here.wait_ready()
        options = (*PICO, "--pool", here.address)
        first = await stack.enter_async_context(engine_process(tmp_path, *options))
        await first.wait_ready(120)
        settings = Settings(
            port=0, pool=here.address, cluster_key=str(key_file(tmp_path)), stt="none", vad="off", max_lag_ms=100_000
        )
        server = await stack.enter_async_context(started(Server(settings)))
        await until(lambda: server.engines["dialogue"].has_room, "the engine is known", 30.0)
        second = await stack.enter_async_context(engine_process(tmp_path, *options))
        speaker = Speaker()
        client = await stack.enter_async_context(VoiceClient(f"http://127.0.0.1:{server.port}", speaker))
        await client.wait_for("connected")
        await second.wait_ready(120)
        speaker.say("count to twelve")
        await until(lambda: NUMBERS[7] in text_of(client), "a count", 60.0)
        first.process.send_signal(signal.SIGTERM)
        assert await first.wait_exit() == 0
        await until(lambda: NUMBERS[12] in text_of(client), "the end of the count", 60.0)
        assert text_of(client).split() == NUMBERS[1:13]
        assert not [event for event in client.events if event["type"] in ("error", "recovered")]
        before = len(text_of(client))
        speaker.say("what is three plus four")
        await until(lambda: "seven" in text_of(client)[before:], "an answer of the other", 60.0)


@contextlib.asynccontextmanager
async def echo_node(name: str, engine: EngineProcess, directory: Path) -> AsyncIterator[Server]:
    settings = Settings(
        port=0, node=name, engine_at=(f"echo={engine.address}",), cluster_key=str(key_file(directory)), model="echo"
    )
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
