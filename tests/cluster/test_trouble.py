"""What goes wrong between machines: a way that is cut, a media node that stands still, two that claim one session,
clocks that differ, two hundred clients at once where there is no engine. Engines are programs of their own, as are
pools, and media nodes that stand still. Other media nodes are in the test's own process; so is the pool of the two
hundred, whose launcher is the test, which starts a program for each engine that is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from lab.engine_process import EngineProcess, engine_process, key_file
from lab.pool_process import PoolProcess, pool_process
from lab.program import without_settings
from lab.serving import started
from lab.sound.tones import Ear, tone
from lab.waiting import until, until_told
from rtc_server.app import Server
from rtc_server.client import OfferRefused, VoiceClient
from rtc_server.cluster.policy import Terms
from rtc_server.config import Settings
from rtc_server.engine import probe
from tests.cluster.test_pool import Shelf
from tests.conftest import ON_ONE_LOOP
from tests.support.breakable_way import BreakableWay
from tests.support.calls import get_json, offering
from tests.support.pools import pool
from tests.support.served import KEY
from tests.support.server_process import server_process
from tests.support.trouble import has_failed, url_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), ON_ONE_LOOP]
HOUR_S: Final = 3600
ECHO: Final = ("--engine-service", "echo")
PICO: Final = ("--model", "pico", "--slots", "1", "--allow-slow")
CLIENTS: Final = 200


@contextlib.asynccontextmanager
async def media_server(directory: Path, **settings: Any) -> AsyncIterator[Server]:
    wanted = {"port": 0, "cluster_key": str(key_file(directory)), "drain_s": 0, "max_lag_ms": 100_000, **settings}
    server = Server(Settings(**{"model": "echo", "stt": "none", "vad": "off", **wanted}))
    async with started(server):
        yield server


def is_told(client: VoiceClient, **fields: str) -> bool:
    return any(fields.items() <= event.items() for event in client.events)


async def slots_used(engine: EngineProcess) -> int:
    report = await asyncio.to_thread(probe.ask, engine.address, KEY)
    return report.used


@pytest.mark.parametrize("cut_s", [2.0, 10.0])
async def test_a_media_node_that_is_cut_off_goes_on_when_the_way_is_back(tmp_path: Path, cut_s: float) -> None:
    """By the same connection and with the same model, which nothing was taken from. That it stood still is told."""
    async with engine_process(tmp_path, *ECHO) as engine, contextlib.AsyncExitStack() as stack:
        await engine.wait_ready()
        way = await stack.enter_async_context(BreakableWay.to(engine.address))
        server = await stack.enter_async_context(media_server(tmp_path, engine_at=(f"echo={way.address}",)))
        ear = Ear()
        client = await stack.enter_async_context(VoiceClient(url_of(server), tone(440), on_voice=ear))
        await ear.until_voice()
        await way.broken_for(cut_s)
        if cut_s > 5:
            assert is_told(client, type="error", code="engine_stalled")
            await client.wait_for("recovered", 30, code="engine_stalled")
        await until(lambda: server.engines["echo"].ready, "the engine's answer")
        await ear.hear(0.5)
        await ear.until_voice()
        assert not has_failed(client)
        assert not is_told(client, type="state", reason="restarted")
        assert server.engines["echo"].restarts == 0
        assert await slots_used(engine) == 1


async def test_an_engine_whose_machine_is_gone_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connections stay, and nothing comes by them: no one says that it has ended. A conversation goes on at another
    engine, by its own connection."""
    async with pool_process(tmp_path) as here, contextlib.AsyncExitStack() as stack:
        await here.wait_ready()
        options = (*ECHO, "--echo-slots", "1", "--pool", here.address)
        gone = await stack.enter_async_context(engine_process(tmp_path, *options))
        await gone.wait_ready()
        server = await stack.enter_async_context(
            media_server(tmp_path, pool=here.address, pool_services=("echo",), echo_slots=1)
        )
        await until(lambda: server.engines["echo"].has_room)
        ear = Ear()
        client = await stack.enter_async_context(VoiceClient(url_of(server), tone(440), on_voice=ear))
        await ear.until_voice()
        other = await stack.enter_async_context(engine_process(tmp_path, *options))
        await other.wait_ready()
        await until(lambda: server.engines["echo"].has_room)
        gone.process.send_signal(signal.SIGSTOP)
        try:
            await client.wait_for("state", 60, reason="restarted")
            await ear.hear(0.5)
            await ear.until_voice()
            assert await slots_used(other) == 1
            assert server.engines["echo"].restarts == 1
            assert not any("killing it" in line for line in caplog.messages), "waited for, as if it were the only one"
        finally:
            gone.process.send_signal(signal.SIGCONT)
        await until(lambda: server.engines["echo"].has_room, "that it is back")
        assert not client.closed.is_set()


async def test_a_media_node_that_stands_still_costs_no_other_and_loses_its_slots(tmp_path: Path) -> None:
    """The other one's clients notice nothing of it, and have the place of its own after the grace. When it goes on, it
    is let in again as one that has just come."""
    grace = ("--engine-grace-s", "4")
    async with engine_process(tmp_path, *ECHO, "--echo-slots", "2", *grace) as engine:
        await engine.wait_ready()
        at = ("--engine-at", f"echo={engine.address}", "--cluster-key", str(key_file(tmp_path)), "--model", "echo")
        async with contextlib.AsyncExitStack() as stack:
            still = await stack.enter_async_context(server_process(*at, "--stt", "none", "--vad", "off"))
            await still.wait_ready()
            server = await stack.enter_async_context(media_server(tmp_path, engine_at=(f"echo={engine.address}",)))
            ear = Ear()
            talking = await stack.enter_async_context(VoiceClient(url_of(server), tone(440), on_voice=ear))
            stopped = await stack.enter_async_context(VoiceClient(still.url, tone(440), on_voice=Ear()))
            for client in (talking, stopped):
                await client.wait_for("connected", 60)
            still.signal(signal.SIGSTOP)
            try:
                await until_told(lambda: only_one_talks(engine), "the end of its lease")
                await until(lambda: server.engines["echo"].has_room, "its slot", 60)
                async with VoiceClient(url_of(server), tone(440)) as another:
                    await another.wait_for("connected", 60)
                    assert await slots_used(engine) == 2
                await ear.until_voice()
            finally:
                still.signal(signal.SIGCONT)
            await until_told(lambda: restarts_at(still.url), "its end, known to it, and its way back")
            assert not is_told(talking, type="error")


async def only_one_talks(engine: EngineProcess) -> bool:
    return await slots_used(engine) == 1


async def restarts_at(url: str) -> bool:
    """Whether a media server has lost its engine, and has one again."""
    _, status = await get_json(f"{url}/status")
    return bool(status["engines"]["echo"]["restarts"]) and status["engines"]["echo"]["state"] == "ready"


async def test_of_two_nodes_that_claim_one_session_one_has_it(tmp_path: Path) -> None:
    """Two clients come at once with its token: the one that was given it, and one that has stolen it. The engine gives
    its slot once; the node that had it is told, and the other is refused as if there were no such session, then and
    when it comes again with a token that has been used."""
    async with engine_process(tmp_path, *PICO) as engine:
        await engine.wait_ready(120)
        async with contextlib.AsyncExitStack() as stack:
            nodes = [
                await stack.enter_async_context(
                    media_server(tmp_path, engine_at=(f"dialogue={engine.address}",), model="pico")
                )
                for _ in range(3)
            ]
            owner = await stack.enter_async_context(VoiceClient(url_of(nodes[0])))
            await owner.wait_for("connected", 60)
            thief = VoiceClient(url_of(nodes[0]))
            stack.push_async_callback(thief.close)
            stolen = thief.session, thief._resume_token = owner.session, owner._resume_token
            claims = await asyncio.gather(
                owner.resume(url_of(nodes[1])), thief.resume(url_of(nodes[2])), return_exceptions=True
            )
            refused = [claim.code for claim in claims if isinstance(claim, OfferRefused)]
            assert refused == ["unknown_session"], claims
            winner = owner if claims[0] is None else thief
            await winner.wait_for("connected", 60, resumed=True)
            await until(lambda: not len(nodes[0].registry), "the end of it where it was")
            assert await slots_used(engine) == 1
            assert sum(len(node.registry) for node in nodes) == 1
            for node in nodes:
                late = VoiceClient(url_of(node))
                late.session, late._resume_token = stolen
                with pytest.raises(OfferRefused) as again:
                    await late.resume(url_of(node))
                assert again.value.code in ("unknown_session", "resume_refused")
            assert not has_failed(winner)
            assert await slots_used(engine) == 1
        await until_told(lambda: is_empty(engine), "the slot given back")


async def is_empty(engine: EngineProcess) -> bool:
    return not await slots_used(engine)


@contextlib.asynccontextmanager
async def elsewhere(off_s: float, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of ours on a machine whose clocks are so many seconds off."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.other_clock", str(off_s), "rtc_server", *command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**without_settings(), "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_machines_whose_clocks_differ_by_hours_are_one_cluster(tmp_path: Path) -> None:
    """The pool's clock is an hour ahead, the engine's an hour behind: what one tells another is how long something
    took, and no time of day."""
    key = ("--cluster-key", str(key_file(tmp_path)))
    async with contextlib.AsyncExitStack() as stack:
        ahead = await stack.enter_async_context(elsewhere(HOUR_S, "pool", "--pool-listen", "127.0.0.1:0", *key))
        here = PoolProcess(ahead)
        await here.wait_ready()
        listens = ("engine", "--engine-listen", "127.0.0.1:0", *ECHO, "--echo-slots", "1", "--pool", here.address)
        engine = EngineProcess(await stack.enter_async_context(elsewhere(-HOUR_S, *listens, *key)))
        await engine.wait_ready()
        server = await stack.enter_async_context(media_server(tmp_path, pool=here.address, pool_services=("echo",)))
        await until(lambda: server.engines["echo"].has_room, "the engine, by way of the pool")
        ear = Ear()
        async with VoiceClient(url_of(server), tone(440), on_voice=ear) as client:
            await ear.until_voice()
            stats = await client.wait_for("stats")
            told = [value for name, value in stats.items() if name.endswith("_ms") and value is not None]
            assert told
            assert all(0 <= value < HOUR_S * 1000 / 2 for value in told), stats
            assert not is_told(client, type="error")
        await until(lambda: server.engines["echo"].has_room, "its slot given back")
        for program in (engine, here):
            program.process.send_signal(signal.SIGTERM)
            assert await program.wait_exit() == 0


async def test_two_hundred_who_come_at_once_to_a_pool_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are told when to come back, as many engines are started as there may be, and those for whom there is room
    then are let in; the rest are told that it is full."""
    monkeypatch.setattr("rtc_server.engine.client._OPEN_TIMEOUT_S", 60.0)  # a busy machine takes seconds for so many
    shelf = Shelf()
    limits = {"offers_per_minute": 1_000_000, "sessions_per_address": 10_000, "connecting_per_address": 10_000}
    limits["connect_timeout_s"] = 100  # and until all are answered none of those who are in may be given up
    async with contextlib.AsyncExitStack() as stack:
        here = await stack.enter_async_context(pool({"echo": Terms(0, 2)}, shelf))
        own = {"pool": here.address, "pool_services": ("echo",)}
        server = await stack.enter_async_context(media_server(tmp_path, **own, **limits))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        body = await stack.enter_async_context(offering())
        assert await offered(http, url_of(server), body) == {(503, "engine_starting"): CLIENTS}
        await until(lambda: shelf.started == 1, "an engine")
        slots = ("--echo-slots", "4", "--pool", here.address)
        for number in (1, 2):
            await until(lambda number=number: shelf.started >= number, "as many engines as there may be")
            engine = await stack.enter_async_context(
                engine_process(tmp_path, *ECHO, *slots, "--engine-name", f"echo-{number}/1")
            )
            await engine.wait_ready()
        await until(lambda: server.engines["echo"].info and server.engines["echo"].info.slots == 8, "both engines")
        answers = await offered(http, url_of(server), body)
        assert answers == {(201, ""): 8, (503, "server_full"): CLIENTS - 8}
        assert shelf.started == 2


async def offered(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Counter[tuple[int, str]]:
    """How often there was which answer to offers of as many clients, all at once."""

    async def offer() -> tuple[int, str]:
        async with http.post(f"{url}/api/offer", json=body) as response:
            answer = await response.json()
            return response.status, "" if response.status == 201 else answer["error"]["code"]

    return Counter(await asyncio.gather(*(offer() for _ in range(CLIENTS))))
