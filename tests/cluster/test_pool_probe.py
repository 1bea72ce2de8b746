"""A pool is asked which engines it knows, and ``rtc-server check`` says so, or what is wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from lab.engine_process import key_file
from rtc_server.cli import check
from rtc_server.cluster import messages, probe
from rtc_server.config import Settings
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.errors import NoEngine
from tests.support.pools import pool
from tests.support.served import KEY, served

WAIT_S = 0.3


async def test_it_tells_of_the_engines_that_are_there(tmp_path: Path) -> None:
    async with pool() as there:
        settings = Settings(pool=there.address, cluster_key=str(key_file(tmp_path)), stt="none")
        assert str(await asyncio.to_thread(probe.ask, there.address, KEY)) == "none"
        with served(pool=there.address) as engine:
            async with asyncio.timeout(20):
                while not (report := await asyncio.to_thread(probe.ask, there.address, KEY)).engines:
                    pass
            assert report.ready("fake") == [engine.address]
            assert str(report) == "1 of fake"
            text, can_run = await asyncio.to_thread(check.report, settings)
            assert can_run
            assert f"ok       engines in the pool at {there.address}: 1 of fake" in text
            assert "--model" not in text


async def test_it_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong(address: str, key: ClusterKey = KEY) -> NoEngine:
        with pytest.raises(NoEngine) as caught:
            await asyncio.to_thread(probe.ask, address, key, WAIT_S)
        return caught.value

    async with pool() as there:
        assert "another cluster key" in (await wrong(there.address, ClusterKey.of(b"o" * 40))).message
        monkeypatch.setattr(probe, "PROTOCOL", messages.PROTOCOL + 1)
        assert "same release" in str((await wrong(there.address)).hint)
    assert "rtc-server pool --pool-listen" in str((await wrong(there.address)).hint)
    settings = Settings(pool=there.address, cluster_key=str(key_file(tmp_path)))
    text, can_run = await asyncio.to_thread(check.report, settings)
    assert not can_run
    assert f"missing  engines in the pool: {there.address} cannot be reached" in text


async def test_as_a_health_check(tmp_path: Path) -> None:
    key = str(key_file(tmp_path))

    def status(address: str) -> int:
        return subprocess.run([sys.executable, "-m", probe.__name__, address, key], check=False).returncode

    async with pool() as there:
        assert await asyncio.to_thread(status, there.address) == 0
    assert await asyncio.to_thread(status, there.address) == 1
