"""Engines that are killed, hang or raise: it costs their conversations at most, and they come back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.audio import FloatArray
from rtc_server.client import OfferRefused, VoiceClient
from rtc_server.engine.factory import SlotOptions
from rtc_server.engine.link import EngineLink, OnExit, OnMessage
from rtc_server.engine.local import LocalLink
from rtc_server.engine.model import BoolArray, RowOutput
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.models.echo import EchoModel
from tests.conftest import need_commands, running_server, server_with
from tests.support.calls import assert_serves, get_json
from tests.support.leftovers import leaves_nothing
from tests.support.script import Speaker
from tests.support.trouble import assert_turned_away, count_of, url_of

pytestmark = pytest.mark.slow


@pytest.fixture
def may_start(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set: while a test clears it, no engine is started again."""
    start, may = ProcessLink.start, asyncio.Event()
    may.set()

    async def start_when_it_may(link: ProcessLink, on_message: OnMessage, on_exit: OnExit) -> None:
        await may.wait()
        await start(link, on_message, on_exit)

    monkeypatch.setattr(ProcessLink, "start", start_when_it_may)
    return may


async def test_an_engine_that_is_killed_comes_back_and_its_conversations_go_on(may_start: asyncio.Event) -> None:
    """By the same connection: the client is told, readiness goes and returns, and so does the sound."""
    ear = Ear()
    async with running_server("--model", "echo", "--engine", "process") as server, leaves_nothing(server):
        url = url_of(server)
        async with VoiceClient(url, tone(440), on_voice=ear) as client:
            await ear.until_voice()
            assert (await get_json(f"{url}/readyz")) == (200, {"status": "ready"})
            pid = server.engines["echo"].pid
            assert pid is not None
            assert pid != os.getpid()
            may_start.clear()
            os.kill(pid, signal.SIGKILL)
            error = await client.wait_for("error", code="engine_failed")
            assert error["retryable"] is True
            status, body = await get_json(f"{url}/readyz")
            assert (status, body["status"]) in [(503, "engine restarting"), (503, "engine loading")]
            with pytest.raises(OfferRefused) as refused:
                await VoiceClient(url).__aenter__()
            assert (refused.value.status, refused.value.code) == (503, "engine_unavailable")
            may_start.set()
            await client.wait_for("state", 60, reason="restarted")
            kinds = [event["type"] for event in client.events if event["type"] not in ("stats", "state")]
            assert kinds == ["connected", "error", "recovered"]
            await ear.hear(0.5)
            await ear.until_voice()
            told = (await get_json(f"{url}/api/sessions/{client.session}"))[1]
            assert told["state"] in ("listening", "speaking")
            assert told["stats"]["frames_out"] < told["stats"]["frames_in"]
            assert not client.closed.is_set()
            assert server.engines["echo"].slots_used == 1
        await until_ready(url)
        await assert_serves(url)
        assert server.engines["echo"].pid != pid
        assert (await get_json(f"{url}/status"))[1]["engines"]["echo"]["restarts"] == 1


async def test_a_client_that_waits_for_an_engine_that_starts_is_connected_before_it_is_there(
    may_start: asyncio.Event,
) -> None:
    """It is told how long the start before has taken, and talks in the session that it has."""
    ear = Ear()
    async with running_server("--model", "echo", "--engine", "process") as server, leaves_nothing(server):
        url, engine = url_of(server), server.engines["echo"]
        assert engine.pid is not None
        may_start.clear()
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.coming, "another start")
        async with VoiceClient(url, tone(440), options={"wait": True}, on_voice=ear) as client:
            starting = await client.wait_for("starting")
            assert starting["eta_ms"] >= 0, "it is known"
            assert client.pc.connectionState == "connected"
            assert await assert_turned_away(url, "engine_unavailable") <= 60
            may_start.set()
            connected = await client.wait_for("connected", 60)
            assert connected["session"] == client.session
            await ear.until_voice()
            assert engine.slots_used == 1


async def test_an_engine_that_is_killed_costs_nobody_else(may_start: asyncio.Event) -> None:
    """Two services, each with an engine: a conversation with the other one goes on for as long as this one is away."""
    child = ChildSpec("rtc_server.models.echo:load", SlotOptions(4))
    links: dict[str, Callable[[], EngineLink]] = {
        "dialogue": lambda: ProcessLink(child),
        "echo": lambda: LocalLink(lambda: EchoModel(4)),
    }
    ear = Ear()
    async with (
        server_with(links) as server,
        leaves_nothing(server),
        VoiceClient(url_of(server), tone(440), service="echo", on_voice=ear) as kept,
    ):
        await ear.until_voice()
        async with VoiceClient(url_of(server), tone(700), service="dialogue") as client:
            await client.wait_for("connected")
            pid = server.engines["dialogue"].pid
            assert pid is not None
            may_start.clear()
            os.kill(pid, signal.SIGKILL)
            await client.wait_for("error", code="engine_failed")
            await ear.hear(0.5)
            await ear.until_voice()
            assert not server.engines["dialogue"].ready
            may_start.set()
            await client.wait_for("state", 60, reason="restarted")
            await ear.hear(0.5)
            await ear.until_voice()
        assert not kept.closed.is_set()
        assert count_of(kept, "error") == 0
        assert server.engines["echo"].restarts == 0
        await assert_serves(url_of(server), "echo")
        await assert_serves(url_of(server), "dialogue")


async def test_an_engine_that_hangs_is_told_of_and_goes_on() -> None:
    """A client that talks is told within seconds, and told when it is over; meanwhile no other is let in."""
    ear = Ear()
    async with running_server("--model", "echo", "--engine", "process") as server, leaves_nothing(server):
        url, engine = url_of(server), server.engines["echo"]
        async with VoiceClient(url, tone(440), on_voice=ear) as client:
            await ear.until_voice()
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGSTOP)
            try:
                error = await client.wait_for("error", code="engine_stalled")
                assert error["retryable"] is True
                assert (await get_json(f"{url}/readyz")) == (503, {"status": "engine stalled"})
                assert (await get_json(f"{url}/status"))[1]["engines"]["echo"]["state"] == "stalled"
                await assert_turned_away(url, "engine_unavailable")
            finally:
                os.kill(engine.pid, signal.SIGCONT)
            await client.wait_for("recovered", code="engine_stalled")
            assert (await get_json(f"{url}/readyz"))[0] == 200
            await ear.hear(0.5)
            await ear.until_voice()
            await assert_serves(url)
            assert engine.restarts == 0
            assert not client.closed.is_set()


async def test_an_empty_engine_that_hangs_lets_nobody_in() -> None:
    async with running_server("--model", "echo", "--engine", "process") as server:
        url, pid = url_of(server), server.engines["echo"].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: not server.engines["echo"].ready, "the silence noticed")
        await assert_turned_away(url, "engine_unavailable")
        os.kill(pid, signal.SIGCONT)
        await until_ready(url)
        await assert_serves(url)


async def test_a_detector_that_is_killed_goes_on_for_those_who_talk() -> None:
    """Speech events come again in the same session."""
    need_commands("espeak-ng")
    speaker = Speaker()
    async with running_server("--model", "echo", "--engine", "process", "--vad", "on") as server:
        detector = server.detector
        assert detector is not None
        async with leaves_nothing(server), VoiceClient(url_of(server), speaker) as client:
            await client.wait_for("connected")
            speaker.say("Is anybody there?")
            await client.wait_for("speech-ended")
            pid = detector.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: detector.ready and detector.pid != pid, "another detector")
            await until(lambda: detector.slots_used == 1, "the session in it")
            before = count_of(client, "speech-started")
            speaker.say("Are you there again?")
            await until(lambda: count_of(client, "speech-started") > before, "speech heard again")
            assert not client.closed.is_set()
            started = [event["at_ms"] for event in client.events if event["type"] == "speech-started"]
            assert started[before] > started[before - 1]


async def test_an_engine_whose_step_raises_is_restarted() -> None:
    """A model that breaks costs its conversations, not the server."""

    class Broken(EchoModel):
        broken = False

        def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
            if Broken.broken:
                Broken.broken = False
                raise RuntimeError("on purpose")
            return super().step(pcm, active)

    ear = Ear()
    async with server_with({"echo": lambda: LocalLink(lambda: Broken(4))}) as server, leaves_nothing(server):
        async with VoiceClient(url_of(server), tone(440), on_voice=ear) as client:
            await ear.until_voice()
            Broken.broken = True
            error = await client.wait_for("error", code="engine_failed")
            assert "on purpose" not in error["message"]
            await client.wait_for("recovered", code="engine_failed")
        await until_ready(url_of(server))
        await assert_serves(url_of(server))


async def until_ready(url: str) -> None:
    async with asyncio.timeout(20):
        while (await get_json(f"{url}/readyz"))[0] != 200:  # noqa: ASYNC110 - it is the other end that changes
            await asyncio.sleep(0.05)
