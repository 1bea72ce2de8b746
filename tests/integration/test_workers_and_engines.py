"""Several media processes and the engine that they share: what becomes of conversations when one of them dies."""

from __future__ import annotations

import os
import signal
from collections import Counter

import aiohttp
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lab.media_processes import worker_of
from lab.pico.phrases import NUMBERS
from lab.waiting import until, until_told
from rtc_server.client import VoiceClient
from tests.support.calls import get_json, text_of
from tests.support.orphans import alive
from tests.support.script import Speaker
from tests.support.server_process import ServerProcess, server_process
from tests.support.workers import media_processes, shared_engines

pytestmark = pytest.mark.alone

PICO = ("--workers", "2", "--model", "pico", "--slots", "2", "--stt", "none", "--allow-slow", "--vad", "off")


async def ask(client: VoiceClient, speaker: Speaker, question: str, answer: str) -> None:
    before = len(text_of(client))
    speaker.say(question)
    await until(lambda: answer in text_of(client)[before:], answer)


async def is_ready(server: ServerProcess) -> bool:
    """In both processes."""
    _, told = await get_json(f"{server.url}/status")
    return [each["engines"]["dialogue"]["state"] for each in told["workers"].values()] == ["ready", "ready"]


async def adds_up(server: ServerProcess) -> bool:
    """Sums over both processes are the server's: of an engine that both have, each knows all."""
    async with aiohttp.ClientSession() as http, http.get(f"{server.url}/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    samples = [each for family in families for each in family.samples if each.labels.get("service") == "dialogue"]
    slots = [each for each in samples if each.name == "rtc_slots"]
    assert [(each.value, "worker" in each.labels) for each in slots] == [(2, False)]
    assert len({each.labels["worker"] for each in samples if each.name == "rtc_slots_used"}) == 2
    sums = Counter[str]()
    for each in samples:
        sums[each.name] += int(each.value)
    assert sums["rtc_slots_used"] == 2
    assert sums["rtc_engine_restarts_total"] == 1
    assert sums["rtc_step_rows_count"] == sums["rtc_step_seconds_count"]
    return sums["rtc_step_rows_sum"] > sums["rtc_step_rows_count"]  # a step of both has two rows


async def test_one_model_for_all_and_what_it_remembers_outlives_the_process() -> None:
    """Two clients, one in each process, talk with one model. One process is killed while the model counts in it: its
    client comes back at the same address and hears the rest, and the other hears nothing of it."""
    async with server_process(*PICO) as server:
        await server.wait_ready(60)
        assert len(shared_engines(server)) == 1
        speakers = Speaker(), Speaker()
        async with VoiceClient(server.url, speakers[0]) as counts, VoiceClient(server.url, speakers[1]) as talks:
            for client in (counts, talks):
                await client.wait_for("connected")
            assert {worker_of(str(client.session)) for client in (counts, talks)} == {0, 1}
            await ask(talks, speakers[1], "what is three plus four", "that is seven")
            await ask(counts, speakers[0], "count to twelve", NUMBERS[7])
            media_processes(server)[worker_of(str(counts.session))].kill()
            await counts.resume()
            await until(lambda: NUMBERS[12] in text_of(counts), "the rest")
            assert text_of(counts).split() == NUMBERS[1:13]
            await ask(talks, speakers[1], "what is two plus two", "that is four")
            assert not [event for event in talks.events if event["type"] == "error"]


async def test_a_signal_to_all_processes_at_once_leaves_the_engine_to_those_who_talk() -> None:
    """As service managers send it: the model answers while the server drains, and ends when they have left. Clients are
    asked to come back by another media node, of which there is none here, and go on."""
    async with server_process(*PICO, "--drain-s", "100", start_new_session=True) as server:
        await server.wait_ready()
        family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        (engine,) = shared_engines(server)
        speaker = Speaker()
        async with VoiceClient(server.url, speaker) as client:
            await client.wait_for("connected")
            os.killpg(server.process.pid, signal.SIGTERM)
            await client.wait_for("moving")
            await ask(client, speaker, "what is two plus two", "that is four")
            assert alive([engine]) == [engine]
            assert not [event for event in client.events if event["type"] == "error"]
        assert await server.wait_exit() == 0
        await until(lambda: not alive(family), "the end of all")


async def test_an_engine_that_is_killed_comes_back_for_all_processes() -> None:
    """At the same address; the conversations in it are told, and go on with it."""
    async with server_process(*PICO) as server:
        await server.wait_ready(60)
        speaker = Speaker()
        async with VoiceClient(server.url, speaker) as first, VoiceClient(server.url) as second:
            for client in (first, second):
                await client.wait_for("connected")
            shared_engines(server)[0].kill()
            for client in (first, second):
                assert (await client.wait_for("error", 60, code="engine_failed"))["retryable"]
            for client in (first, second):
                await client.wait_for("state", 60, reason="restarted")
            await ask(first, speaker, "what is two plus two", "that is four")
            await until_told(lambda: adds_up(server))
        speaker = Speaker()
        async with VoiceClient(server.url, speaker) as client:
            await client.wait_for("connected")
            await ask(client, speaker, "what is three plus four", "that is seven")
