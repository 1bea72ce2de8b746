"""Media servers whose engine is another process, reached over TCP: a whole conversation, and what becomes of it when
the engine goes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.engine_process import SECRET, EngineProcess, engine_process, key_file
from lab.pico.phrases import NUMBERS
from lab.serving import started
from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.config import Settings
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.messages import PROTOCOL
from rtc_server.errors import EngineUnavailable, ModelLoadError
from tests.conftest import ON_ONE_LOOP
from tests.support.calls import get_json, text_of
from tests.support.counting_node import QUIET
from tests.support.engines import Ear as StreamEar
from tests.support.engines import frame, running
from tests.support.script import Speaker, say_until
from tests.support.served import node
from tests.support.server_process import server_process
from tests.support.trouble import url_of

pytestmark = [pytest.mark.alone, ON_ONE_LOOP]


@contextlib.asynccontextmanager
async def media_server(engine: EngineProcess, directory: Path, service: str) -> AsyncIterator[Server]:
    settings: dict[str, Any] = {"dialogue": {"stt": "none"}, "echo": {"model": "echo"}}[service]
    key, at = str(key_file(directory)), (f"{service}={engine.address}",)
    server = Server(Settings(port=0, engine_at=at, cluster_key=key, drain_s=0, **settings))
    async with started(server):
        yield server


def talk_to(server: Server, *, service: str | None = None, speaker: Speaker) -> VoiceClient:
    return VoiceClient(f"http://127.0.0.1:{server.port}", speaker, service=service, on_voice=Ear())


async def test_two_media_servers_talk_with_one_model(tmp_path: Path) -> None:
    """At a time; and neither has loaded it."""
    async with engine_process(tmp_path, "--model", "pico", "--slots", "2") as engine:
        await engine.wait_ready()
        async with media_server(engine, tmp_path, "dialogue") as a, media_server(engine, tmp_path, "dialogue") as b:
            assert [server.engines["dialogue"].info.name for server in (a, b)] == ["pico", "pico"]  # type: ignore[union-attr]
            assert [server.engines["dialogue"].pid for server in (a, b)] == [None, None]
            speakers = Speaker(), Speaker()
            async with talk_to(a, speaker=speakers[0]) as first, talk_to(b, speaker=speakers[1]) as second:
                for client in (first, second):
                    await client.wait_for("connected")
                async with asyncio.TaskGroup() as both:
                    answered = lambda: text_of(first).endswith("that is seven")  # noqa: E731
                    counted = lambda: text_of(second).endswith("one two three")  # noqa: E731
                    both.create_task(say_until(speakers[0], "what is three plus four", answered, "the answer"))
                    both.create_task(say_until(speakers[1], "count to three", counted, "the count"))
            await until(lambda: b.engines["dialogue"].slots_used == 0 and b.engines["dialogue"].has_room)


async def test_what_the_model_remembers_outlives_its_media_node(tmp_path: Path) -> None:
    """It counts, its node is killed at "seven", and another node that has the key hears "eight"."""
    key = secrets.token_bytes(24)
    async with engine_process(tmp_path, "--model", "pico", "--slots", "1", "--allow-slow") as engine:
        await engine.wait_ready()
        counting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.counting_node", engine.address, key.hex(), NUMBERS[7]),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert counting.stdout is not None
            said = (await counting.stdout.readline()).decode().split()
        finally:
            counting.kill()
            await counting.wait()
        assert said == NUMBERS[1:8]
        async with running(node(engine.address)) as client:
            ear = StreamEar()
            stream = await client.adopt(key, ear)
            async with asyncio.timeout(30):
                while NUMBERS[12] not in ear.text:
                    await stream.feed(QUIET)
            assert ear.text.split() == NUMBERS[8:13]
            assert not ear.errors


async def test_a_client_goes_on_by_another_media_server(tmp_path: Path) -> None:
    """Its own is killed while the model counts. By the one that takes over it is one session as any other: it is looked
    at and ended there, by the id that it had and by the one that it has."""
    async with engine_process(tmp_path, "--model", "pico", "--slots", "1", "--allow-slow") as engine:
        await engine.wait_ready()
        at = ("--engine-at", f"dialogue={engine.address}", "--cluster-key", str(key_file(tmp_path)), "--stt", "none")
        async with server_process(*at) as first, media_server(engine, tmp_path, "dialogue") as second:
            await first.wait_ready()
            speaker = Speaker()
            async with VoiceClient(first.url, speaker, on_voice=Ear()) as client:
                await client.wait_for("connected")
                former_id = client.session
                speaker.say("count to twelve")
                await until(lambda: NUMBERS[7] in text_of(client), "a part of the count")
                await first.kill()
                await client.resume(url_of(second))
                assert (await client.wait_for("connected", resumed=True))["session"] == client.session
                await until(lambda: NUMBERS[12] in text_of(client), "the rest")
                assert text_of(client).split() == NUMBERS[1:13]
                for session_id in (former_id, client.session):
                    status, told = await get_json(f"{url_of(second)}/api/sessions/{session_id}")
                    assert (status, told["session"]) == (200, client.session)
            await until(lambda: second.engines["dialogue"].slots_used == 0 and second.engines["dialogue"].has_room)


async def test_an_engine_that_is_killed_is_said_and_comes_back(tmp_path: Path) -> None:
    options = ("--engine-service", "echo", "--echo-slots", "2")
    async with engine_process(tmp_path, *options) as engine:
        await engine.wait_ready()
        async with media_server(engine, tmp_path, "echo") as server, talk_to(server, speaker=Speaker()) as client:
            await client.wait_for("connected")
            await engine.kill()
            async with engine_process(tmp_path, *options, listen=engine.address) as again:
                await again.wait_ready()
                assert (await client.wait_for("error", code="engine_failed"))["retryable"]
                await client.wait_for("state", reason="restarted")
                assert not client.closed.is_set()
                await server.engines["echo"].wait_ready()
                async with talk_to(server, speaker=Speaker()) as other:
                    await other.wait_for("connected")


async def test_an_engine_that_is_told_to_end_lets_conversations_end(tmp_path: Path) -> None:
    async with engine_process(tmp_path, "--engine-service", "echo", "--drain-s", "60") as engine:
        await engine.wait_ready()
        async with media_server(engine, tmp_path, "echo") as server:
            async with talk_to(server, speaker=Speaker()) as client:
                await client.wait_for("connected")
                engine.process.send_signal(signal.SIGTERM)
                await until(lambda: any("draining" in line for line in engine.log))
                assert psutil.Process(engine.process.pid).is_running()
                assert engine.process.returncode is None
            assert await engine.wait_exit() == 0


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async with engine_process(tmp_path, "--engine-service", "echo", "--drain-s", "60") as engine:
        await engine.wait_ready()
        async with media_server(engine, tmp_path, "echo") as server, talk_to(server, speaker=Speaker()) as client:
            await client.wait_for("connected")
            engine.process.send_signal(signal.SIGTERM)
            await until(lambda: any("draining" in line for line in engine.log))
            engine.process.send_signal(signal.SIGTERM)
            assert await engine.wait_exit() == 0


async def test_while_the_model_is_loading_a_signal_ends_it(tmp_path: Path) -> None:
    async with engine_process(tmp_path, "--model", "pico") as engine:
        await until(lambda: any("loading" in line for line in engine.log), "its port")
        engine.process.send_signal(signal.SIGINT)
        assert await engine.wait_exit() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "nowhere/at-all/x"), "neither a directory nor a hub repository"),
        (("--engine-service", "transcribe", "--model", "echo"), "There is no model for transcribe"),
        (("--engine-service", "opera"), "must be one of"),
        (("--cluster-key", "/nowhere"), "cannot be read"),
    ],
)
async def test_what_cannot_be_started_says_why(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    async with engine_process(tmp_path, *options) as engine:
        assert await engine.wait_exit() == 1
        assert any(said in line for line in engine.log), engine.log


async def test_one_with_another_key_or_of_another_release_is_not_let_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told why, and others go on."""
    async with engine_process(tmp_path, "--engine-service", "echo") as engine:
        await engine.wait_ready()
        stranger = node(engine.address, ClusterKey.of(SECRET + b"!"))
        stranger.start()
        async with running(node(engine.address)) as known:
            await until(lambda: "--cluster-key" in caplog.text, "the reason")
            with pytest.raises(EngineUnavailable):
                await stranger.open(StreamEar())
            await stranger.close()
            monkeypatch.setattr("rtc_server.engine.remote.PROTOCOL", PROTOCOL + 1)
            later = node(engine.address)
            later.start()
            with pytest.raises(ModelLoadError, match=f"version {PROTOCOL} "):
                await later.wait_settled()
            await later.close()
            stream = await known.open(ear := StreamEar())
            assert stream.push(frame())
            await until(lambda: ear.frames, "an answer")


async def test_it_does_not_start_without_a_key(tmp_path: Path) -> None:
    async with engine_process(tmp_path, "--cluster-key", "") as engine:
        assert await engine.wait_exit() == 1
        assert any("--cluster-key is empty" in line for line in engine.log), engine.log
