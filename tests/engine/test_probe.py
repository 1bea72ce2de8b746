"""An engine elsewhere is asked how it is: what it answers, and what is said of each way in which it does not."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lab.engine_process import key_file
from rtc_server.engine import probe
from rtc_server.engine.cluster_key import ClusterKey
from rtc_server.engine.messages import PROTOCOL
from rtc_server.errors import NoEngine
from tests.support.engines import Ear, running
from tests.support.fake_models import CountingModel, PagedModel
from tests.support.served import KEY, ServedEngine, node, served

WAIT_S = 0.3
OTHER_KEY = ClusterKey.of(b"the secret of quite another cluster")


def wrong(address: str, key: ClusterKey = KEY) -> NoEngine:
    with pytest.raises(NoEngine) as caught:
        probe.ask(address, key, WAIT_S)
    assert address in caught.value.message
    assert caught.value.hint
    return caught.value


async def test_it_tells_of_the_model_and_of_its_slots() -> None:
    """Those that are in use among them; and leaves nothing behind."""
    with served(slots=3) as engine:
        async with running(node(engine.address)) as other:
            await other.open(Ear())
            for _ in range(2):
                report = await asyncio.to_thread(probe.ask, engine.address, KEY)
                assert (report.ready.info.slots, report.used) == (3, 1)
                assert re.fullmatch(r"\S+ on \S+, 3 slots, 1 of them in use", str(report))
            for _ in range(2):
                await other.open(Ear())


def test_it_tells_of_the_memory_that_slots_share() -> None:
    with served(model=PagedModel(3, pages=1200, most=8)) as engine:
        assert str(probe.ask(engine.address, KEY)).endswith("0 of them in use, 1,200 of 1,200 pages free")


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert "Connection refused" in wrong(address).message


def test_a_name_that_leads_nowhere() -> None:
    assert "cannot be reached" in wrong("engine.invalid:7700").message


def test_it_is_another_cluster() -> None:
    with served() as engine:
        error = wrong(engine.address, OTHER_KEY)
    assert "another cluster key" in error.message
    assert "--cluster-key" in str(error.hint)


def test_it_is_no_engine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "says nothing" in wrong(f"127.0.0.1:{silent.getsockname()[1]}").message


def test_its_model_is_loading() -> None:
    loaded = threading.Event()

    def load() -> CountingModel:
        assert loaded.wait(20)
        return CountingModel(2)

    engine = ServedEngine(load)
    try:
        assert "loading" in str(wrong(engine.address).hint)
        loaded.set()
        assert probe.ask(engine.address, KEY).used == 0
    finally:
        loaded.set()
        engine.stop()


def test_it_speaks_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROTOCOL", PROTOCOL + 1)
    with served() as engine:
        error = wrong(engine.address)
    assert f"version {PROTOCOL}" in error.message
    assert "same release" in str(error.hint)


def test_as_a_health_check(tmp_path: Path) -> None:
    """A process of its own, by its status: and one that brings neither a model nor the media plane."""

    def status(*arguments: str) -> int:
        return subprocess.run([sys.executable, "-m", "rtc_server.engine.probe", *arguments], check=False).returncode

    key = str(key_file(tmp_path))
    with served() as engine:
        assert status(engine.address, key) == 0
        assert status(engine.address) == 2
        assert status(engine.address, str(tmp_path / "none")) == 1
    assert status(engine.address, key) == 1
    code = "import sys, rtc_server.engine.probe; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "moshi", "aiohttp", "aiortc", "av"} & set(loaded)
