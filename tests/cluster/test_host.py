"""What runs an engine on a machine: another one when it has ended, none when it was told to drain."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lab.engine_process import key_file
from lab.waiting import until
from rtc_server.cluster.host import EngineHost, HostSpec
from tests.support.pools import Node, RunningPool, pool

pytestmark = pytest.mark.slow
ENGINE = ("rtc_server.cli.hosted", "engine", "--engine-listen", "127.0.0.1:0", "--engine-service", "echo")


def echo_host(directory: Path, here: RunningPool) -> EngineHost:
    key = str(key_file(directory))
    command = (*ENGINE, "--pool", here.address, "--cluster-key", key, "--drain-s", "60")
    return EngineHost("one", HostSpec("echo", command, here.address, key))


async def test_an_engine_that_ends_is_replaced_until_it_is_told_to_drain(tmp_path: Path) -> None:
    async with pool() as here, Node.at(here.address) as asking:
        host = echo_host(tmp_path, here)
        await until(lambda: asking.try_to_say(b"") and host.pid() is not None)
        await asking.ask()
        await until(lambda: len(asking.lives) == 1, "an engine", 60)
        (first,) = asking.lives
        assert first.startswith("one/")
        pid = host.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: asking.lives == [], "its host says so at once", 2)
        await until(lambda: len(asking.lives) == 1, "another one", 60)
        assert asking.lives != [first]
        assert asking.roster is not None
        assert asking.roster.gone == [first]
        await asyncio.to_thread(host.drain)
        assert host.pid() is None
        await until(lambda: asking.lives == [])


async def test_an_engine_that_is_told_to_drain_before_it_is_there_does_not_come(tmp_path: Path) -> None:
    async with pool() as here:
        host = echo_host(tmp_path, here)
        await asyncio.wait_for(asyncio.to_thread(host.drain), 60)
        assert host.pid() is None
