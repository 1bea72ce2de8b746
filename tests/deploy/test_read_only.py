"""With a root file system that cannot be written and no capabilities, as the manifests and Compose files have it, every
program of theirs does its work: they write to their ``/tmp`` alone.

A namespace of mounts takes the place of the container that cannot be had here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from lab.engine_process import key_file
from lab.program import Program, without_settings
from lab.servers import free_port
from rtc_server.client import VoiceClient
from tests.conftest import need_commands
from tests.support.server_process import ROOT

pytestmark = pytest.mark.slow

_SCRIPT: Final = """
set -e
own=$1; shift
mount --make-rprivate /
mount --bind "$own" "$own"
for at in $(awk '{print $2}' /proc/mounts | grep -v -e '^/proc' -e '^/sys' -e '^/dev' -e "^$own" | sort -r); do
  mount -o remount,ro,bind "$at"
done
! touch /written 2>/dev/null
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


@pytest.fixture(autouse=True)
def _needs() -> None:
    need_commands("unshare", "setpriv")
    if os.geteuid():
        pytest.skip("mounts are root's")


@contextlib.asynccontextmanager
async def apart(own: Path, *arguments: str, module: str = "rtc_server") -> AsyncIterator[Program]:
    """``python -m module``, which may write to ``own`` alone."""
    command: Sequence[str] = (sys.executable, "-m", module, *arguments)
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "sh", "-c", _SCRIPT, "sh", str(own), *command),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=without_settings({**os.environ, "TMPDIR": str(own), "HOME": "/nonexistent"}),
    )
    program = Program(process)
    try:
        yield program
    finally:
        await program.kill()


async def test_a_media_node_and_an_engine_elsewhere(tmp_path: Path) -> None:
    """With a model: what torch would keep goes to the engine's ``/tmp``."""
    key, port = str(key_file(tmp_path)), str(free_port())
    shared = ("--engine-listen", "127.0.0.1:0", "--cluster-key", key)
    async with apart(tmp_path, "engine", *shared, "--model", "pico", "--slots", "1", "--allow-slow") as engine:
        address = (await engine.wait_said(r", at (\S+:\d+)\. On a media server", 100))[1]
        at = ("--engine-at", f"dialogue={address}", "--cluster-key", key)
        async with apart(tmp_path, "serve", "--port", port, *at) as media:
            await media.wait_said(rf"localhost:{port}|127\.0\.0\.1:{port}", 60)
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/readyz") as response:
                assert response.status == 200
            async with VoiceClient(f"http://127.0.0.1:{port}") as client:
                await client.wait_for("connected")
        async with apart(tmp_path, address, key, module="rtc_server.engine.probe") as probe:
            await probe.wait_said("pico on cpu, 1 slots", 30)


async def test_a_pool(tmp_path: Path) -> None:
    key = str(key_file(tmp_path))
    async with apart(tmp_path, "pool", "--pool-listen", "127.0.0.1:0", "--cluster-key", key) as pool:
        address = (await pool.wait_said(r"A pool at (\S+:\d+)\.", 30))[1]
        async with apart(tmp_path, address, key, module="rtc_server.cluster.probe") as probe:
            await probe.wait_said("none", 30)


async def test_a_relay(tmp_path: Path) -> None:
    need_commands("turnserver", "turnutils_stunclient")
    secret, port = tmp_path / "secret", str(free_port())
    secret.write_text("s" * 40)
    secret.chmod(0o600)
    async with apart(tmp_path, "turn", "--turn-port", port, "--turn-secret-file", str(secret)) as relay:
        await relay.wait_said("A relay for clients", 30)
        async with asyncio.timeout(30):
            while not await _answers(port):
                pass


async def _answers(port: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *("timeout", "2", "turnutils_stunclient", "-p", port, "127.0.0.1"),  # asks once, and waits for ever
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    return b"reflexive addr" in out
