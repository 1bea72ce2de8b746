"""Media servers whose engine is another process, reached over TCP: whole conversations with a model, and what becomes
of them when a media server goes."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path

import pytest

from lab.engine_process import engine_process, key_file
from lab.pico.phrases import NUMBERS
from lab.sound.tones import Ear
from lab.waiting import until
from rtc_server.client import VoiceClient
from tests.conftest import ON_ONE_LOOP
from tests.support.calls import get_json, text_of
from tests.support.counting_node import QUIET
from tests.support.engines import Ear as StreamEar
from tests.support.engines import running
from tests.support.media_node import media_server, talk_to
from tests.support.script import Speaker, say_until
from tests.support.served import node
from tests.support.server_process import server_process
from tests.support.trouble import url_of

pytestmark = [pytest.mark.alone, ON_ONE_LOOP]


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
