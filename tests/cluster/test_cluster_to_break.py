"""The cluster that ``make cluster`` starts: it is there behind one address, what is killed is started again, and a
signal ends all of it. That conversations outlive each kind of kill is held where the model need not understand a voice
beside so many programs: of the page in ``tests/browser``, of all else in ``test_ray.py`` and ``test_trouble.py``, and
in ``test_show.py`` what the show breaks and expects."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import sys

import aiohttp
import psutil
import pytest

from lab.program import Program, without_settings
from lab.waiting import until
from tests.support.missing import skip_but_in_ci
from tests.support.orphans import alive

if importlib.util.find_spec("ray") is None:
    skip_but_in_ci("needs the package ray: pip install 'rtc-server[cluster]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
START_S = 800.0
AGAIN_S = 120.0


async def test_it_is_there_what_is_killed_comes_back_and_a_signal_ends_it_all() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab.cluster", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=without_settings(),
        start_new_session=True,
    )
    started = Program(process)
    family: list[psutil.Process] = []
    try:
        url = (await started.wait_said(r"(http://\S+) is the page, behind one address", START_S))[1]
        node = await started.wait_said(r"media node a: process (\d+), by itself at (http://\S+)", AGAIN_S)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 10
        os.kill(int(node[1]), signal.SIGKILL)
        await started.wait_said(r"media node a has ended \(SIGKILL\) and is started again", AGAIN_S)
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert re.search("<title>", await answer.text()), "the other node has the page"
        await started.wait_said("media node a is ready again", AGAIN_S)
        async with aiohttp.ClientSession() as http, http.get(f"{node[2]}/healthz") as answer:
            assert answer.status == 200
        family += [each for each in psutil.Process(process.pid).children(recursive=True) if each not in family]
        os.killpg(process.pid, signal.SIGINT)
        assert await started.wait_exit(AGAIN_S) == 0
        await until(lambda: not alive(family), f"the end of all: {alive(family)}")
    finally:
        await started.kill()
        for each in alive(family):
            each.kill()
