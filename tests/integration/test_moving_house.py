"""A conversation whose engine is told to end goes on at another, in the middle of a sentence."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from lab.engine_process import engine_process, key_file
from lab.pico.phrases import NUMBERS
from lab.pool_process import pool_process
from lab.serving import started
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.config import Settings
from tests.conftest import ON_ONE_LOOP
from tests.support.calls import text_of
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
