"""An engine in a process of its own, reached over TCP, that ends or is not let in: what its media server's clients are
told, and what it says itself."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from lab.engine_process import SECRET, engine_process
from lab.waiting import until
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.messages import PROTOCOL
from rtc_server.errors import EngineUnavailable, ModelLoadError
from tests.conftest import ON_ONE_LOOP
from tests.support.engines import Ear as StreamEar
from tests.support.engines import frame, running
from tests.support.media_node import media_server, talk_to
from tests.support.script import Speaker
from tests.support.served import node

pytestmark = ON_ONE_LOOP


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
