"""The server as a program: how it starts, how it stops, what it prints and logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import aiohttp
import psutil
import pytest

from lab.sound.tones import Ear, tone
from lab.waiting import until
from rtc_server.access import credentials
from rtc_server.client import OfferRefused, VoiceClient
from tests.support.calls import assert_serves, get_json
from tests.support.orphans import alive, engines_of
from tests.support.server_process import ROOT, ServerProcess, server_process

pytestmark = pytest.mark.slow

PRIVATE = {
    "an IPv4 address": re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"),
    "an IPv6 address": re.compile(r"(?i)(?<![\w:])(?:[0-9a-f]{1,4}:){3,}|::[0-9a-f]"),
    "a description": re.compile(r"v=0|a=(?:candidate|ice-ufrag|ice-pwd|fingerprint|group)|m=audio"),
    "a traceback": re.compile(r"Traceback|\bERROR\b|never (?:retrieved|awaited)"),
}

BOTH_ENGINES = ("--model", "echo", "--engine", "process", "--vad", "on")
"""The model's and that of voice-activity detection, each in a process of its own."""

SOON_S = 30.0
"""On a busy machine too; half of the longest grace."""

KEY = credentials.new_key()
KEYS = f'[[keys]]\nname = "phone"\nhash = "{credentials.hash_of(KEY)}"\n'


async def _run(*arguments: str) -> tuple[int, str, str]:
    """A server that is expected to end by itself: its status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtc_server", "serve", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def _stopped(server: ServerProcess, client: VoiceClient) -> None:
    """The client is told in the right order, and the server ends well."""
    await client.wait_for("disconnected", reason="server_shutdown", timeout_s=SOON_S)
    types = [(event["type"], event.get("code")) for event in client.events]
    assert types.index(("error", "draining")) < types.index(("disconnected", None))
    assert types[-1] == ("disconnected", None)
    assert await server.wait_exit(SOON_S) == 0


@pytest.mark.parametrize(("number", "engine"), [(signal.SIGTERM, "process"), (signal.SIGINT, "thread")])
async def test_a_signal_drains_and_stops_the_server(number: signal.Signals, engine: str) -> None:
    """The client is warned, goes on talking for the grace it has, is told why it ends; the status is 0."""
    ear = Ear()
    async with server_process("--model", "echo", "--engine", engine, "--drain-s", "3") as server:
        await server.wait_ready()
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert bool(children) is (engine == "process")
        async with VoiceClient(server.url, tone(440), on_voice=ear) as client:
            await ear.until_voice()
            told_at = time.monotonic()
            server.signal(number)
            await client.wait_for("error", code="draining")
            assert (await get_json(f"{server.url}/readyz"))[0] == 503
            with pytest.raises(OfferRefused) as refused:
                await VoiceClient(server.url).__aenter__()
            assert refused.value.code == "draining"
            await ear.hear(0.3)
            await _stopped(server, client)
            assert time.monotonic() - told_at > 2.9, "the grace was not given"
        await until(lambda: not alive(children), "the end of its engines")


async def test_a_second_signal_hurries() -> None:
    """Of a minute's grace, nothing is left."""
    ear = Ear()
    async with server_process("--model", "echo", "--drain-s", "60") as server:
        await server.wait_ready()
        async with VoiceClient(server.url, tone(440), on_voice=ear) as client:
            await ear.until_voice()
            server.signal(signal.SIGTERM)
            await client.wait_for("error", code="draining")
            server.signal(signal.SIGINT)
            await _stopped(server, client)


async def test_a_drain_ends_when_the_last_client_leaves() -> None:
    ear = Ear()
    async with server_process("--model", "echo", "--drain-s", "60") as server:
        await server.wait_ready()
        async with VoiceClient(server.url, tone(440), on_voice=ear) as client:
            await ear.until_voice()
            server.signal(signal.SIGTERM)
            await client.wait_for("error", code="draining")
            client.send({"type": "bye"})
            await client.wait_for("disconnected", reason="bye")
        assert await server.wait_exit(SOON_S) == 0


async def test_an_idle_server_stops_at_once() -> None:
    async with server_process("--model", "echo", "--drain-s", "60") as server:
        await server.wait_ready()
        # A browser keeps its connection open: it must not hold the server up.
        async with aiohttp.ClientSession() as http, http.get(f"{server.url}/healthz"):
            server.signal(signal.SIGTERM)
            assert await server.wait_exit(SOON_S) == 0


async def test_a_signal_while_the_model_loads_stops_the_server() -> None:
    async with server_process("--model", "echo", "--engine", "process") as server:
        await until(lambda: engines_of(server.process.pid), "the engine's process")
        server.signal(signal.SIGTERM)
        assert await server.wait_exit(SOON_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_whole_group_is_the_servers_to_handle(number: signal.Signals) -> None:
    """A Ctrl-C, or a service manager as it is set up by default: no engine ends under its conversations."""
    ear = Ear()
    async with server_process(*BOTH_ENGINES, "--drain-s", "60", process_group=0) as server:
        await server.wait_ready()
        engines = engines_of(server.process.pid)
        assert len(engines) == 2
        async with VoiceClient(server.url, tone(440), on_voice=ear) as client:
            await ear.until_voice()
            os.killpg(server.process.pid, number)
            await client.wait_for("error", code="draining")
            await ear.hear(0.5)
            await ear.until_voice()
            assert len(alive(engines)) == 2
            os.killpg(server.process.pid, number)
            await _stopped(server, client)
        assert not [event for event in client.events if event.get("code") == "engine_failed"]
        assert not alive(engines)
    assert not [line for line in server.log if "ERROR" in line]


async def test_a_hangup_of_the_whole_group_reads_files_again_and_no_client_notices(tmp_path: Path) -> None:
    """A service manager that is asked to send SIGHUP sends it to every process of the service."""
    keys = tmp_path / "auth.toml"
    keys.write_text(KEYS)
    ear = Ear()
    arguments = (*BOTH_ENGINES, "--auth", str(keys))
    async with server_process(*arguments, process_group=0) as server:
        await server.wait_ready()
        engines = engines_of(server.process.pid)
        async with VoiceClient(server.url, tone(440), on_voice=ear, token=KEY) as client:
            await ear.until_voice()
            os.killpg(server.process.pid, signal.SIGHUP)
            await until(lambda: any("keys are read" in line for line in server.log), "the keys read again")
            await ear.hear(0.5)
            await ear.until_voice()
            assert not [event for event in client.events if event["type"] in ("error", "disconnected")]
        assert alive(engines) == engines


async def test_a_group_that_gets_signals_while_its_engines_start_has_them(tmp_path: Path) -> None:
    """There is no moment in which a signal ends a child that is only just beginning."""
    keys = tmp_path / "auth.toml"
    keys.write_text(KEYS)
    async with server_process(*BOTH_ENGINES, "--auth", str(keys), process_group=0) as server:
        ready = asyncio.create_task(server.wait_ready())
        await until(lambda: engines_of(server.process.pid), "an engine's process")
        while not ready.done():
            os.killpg(server.process.pid, signal.SIGHUP)
            await asyncio.sleep(0.01)
        await ready
        authorised = {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(headers=authorised) as http, http.get(f"{server.url}/status") as response:
            engines = (await response.json())["engines"]
    assert [engine["restarts"] for engine in engines.values()] == [0]
    assert not [line for line in server.log if "ERROR" in line]


@pytest.mark.parametrize("stopped", [False, True], ids=["idle", "hanging"])
async def test_a_server_that_is_killed_leaves_nothing_behind(tmp_path: Path, stopped: bool) -> None:
    """No engine, whatever it was doing, and no file."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    async with server_process(*BOTH_ENGINES, environment=environment) as server:
        await server.wait_ready()
        engines = engines_of(server.process.pid)
        assert len(engines) == 2
        if stopped:
            for engine in engines:
                engine.suspend()
        server.signal(signal.SIGKILL)
        await server.wait_exit()
        await until(lambda: not alive(engines), "the engines' end")
    assert _is_empty(tmp_path)


def _is_empty(directory: Path) -> bool:
    return not any(directory.iterdir())


async def test_a_port_in_use_is_an_error_with_a_hint() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out, err = await _run("--model", "echo", "--port", str(port))
    assert status == 1
    assert out == ""
    assert re.search(rf"^error: .* port {port}: .*\n^hint: .*--port", err, re.MULTILINE)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("kind", "engine"), [("missing", "thread"), ("missing", "process"), ("empty", "process"), ("garbage", "process")]
)
async def test_a_wrong_model_directory_is_an_error_with_a_hint(tmp_path: Path, kind: str, engine: str) -> None:
    model = tmp_path / "model"
    if kind != "missing":
        model.mkdir()
    if kind == "garbage":
        (model / "config.json").write_text("{")
    status, out, err = await _run("--port", "0", "--device", "cpu", "--model", str(model), "--engine", engine)
    assert status == 1
    assert "Open http" not in out
    assert re.search(r"^error: .+\n^hint: .+", err, re.MULTILINE), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [("--port", "70000"), ("--port", "x"), ("--log-level", "loud"), ("--node", "a b"), ("--device", "tpu")],
    ids=" ".join,
)
async def test_a_wrong_setting_is_an_error(arguments: tuple[str, str]) -> None:
    status, out, err = await _run(*arguments)
    assert status == 1
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err


async def test_the_log_tells_of_sessions_and_of_nothing_private() -> None:
    """One line when a session opens and one when it closes; no address, no description, no id that opens it."""
    async with server_process("--model", "echo", "--peer-timeout-s", "1") as server:
        await server.wait_ready()
        sessions = []
        for _ in range(2):
            ear = Ear()
            async with VoiceClient(server.url, tone(440), on_voice=ear) as client:
                await client.wait_for("connected")
                await ear.until_voice()
                client.send("nonsense")
                await client.wait_for("error")
                sessions.append(client.session)
        async with aiohttp.ClientSession() as http:
            for body in ("{", json.dumps({"sdp": "v=0\r\nm=audio 9 x 0\r\n", "type": "offer"})):
                headers = {"Content-Type": "application/json"}
                async with http.post(f"{server.url}/api/offer", data=body, headers=headers) as response:
                    assert response.status in (400, 422)
            for path in ("/nothing?token=secret", f"/api/sessions/{sessions[0]}"):
                async with http.get(server.url + path) as response:
                    assert response.status == 404
        await assert_serves(server.url)
        server.signal(signal.SIGTERM)
        assert await server.wait_exit() == 0
    log = "\n".join(server.log)
    for what, pattern in PRIVATE.items():
        found = pattern.search(log)
        assert not found, f"{what} in the log: {found}"
    for session in sessions:
        assert session is not None
        _, _, secret = session.split("-", 2)
        assert secret not in log
        assert session not in log
    assert "secret" not in log
    opened = re.findall(r"session (\S+): opened", log)
    ended = re.findall(r"session (\S+): ended, bye", log)
    assert len(opened) == 3
    assert sorted(opened) == sorted(ended)


async def test_a_window_that_is_closed_stops_the_server() -> None:
    """A service takes SIGHUP as a wish to read its files again. No user would be left to stop one of a terminal."""
    ours, theirs = os.openpty()
    try:
        async with server_process("--model", "echo", stdin=theirs) as server:
            await server.wait_ready()
            server.signal(signal.SIGHUP)
            assert await server.wait_exit() == 0
    finally:
        os.close(ours)
        os.close(theirs)
