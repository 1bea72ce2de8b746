"""The cluster that ``make cluster`` starts: its parts are killed under a page's conversation, and it leaves nothing
behind."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys

import psutil
import pytest

from lab.program import Program, without_settings
from lab.waiting import until
from tests.conftest import need_commands
from tests.support.missing import skip_but_in_ci
from tests.support.orphans import alive

if importlib.util.find_spec("ray") is None:
    skip_but_in_ci("needs the package ray: pip install 'rtc-server[cluster]'")
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.browser, pytest.mark.timeout(600)]
START_S = 240.0
SHOWN_S = 300.0
TOLD = (
    r"the page, in \S*chromium, talks with Pico",
    r"media node [ab] is told to end: .*memory kept",
    r"media node [ab] is killed: .*memory kept",
    r"its engine is told to end: the conversation is moved to the other one, .*memory kept",
    r"its engine is killed: .*memory lost",
    r"its engine's machine, with what runs it there, is killed: .*memory lost",
    r"the pool is killed: the conversation notices nothing",
    r"Ray's head is killed: the conversation notices nothing",
    r"a second client comes, and has a slot",
    r"that was all",
)


async def test_a_conversation_outlives_its_parts_and_a_signal_ends_them_all() -> None:
    """One start for all of it: Ray takes its time."""
    need_commands("chromium")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab.cluster", "--port", "0", "--show"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=without_settings(),
        start_new_session=True,
    )
    shown = Program(process)
    family: list[psutil.Process] = []
    try:
        await shown.wait_said(r"is the page, behind one address", START_S)
        for line in TOLD:
            await shown.wait_said(line, SHOWN_S)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 10
        os.killpg(process.pid, signal.SIGINT)
        assert await shown.wait_exit(90) == 0
        await until(lambda: not alive(family), f"the end of all: {alive(family)}")
    finally:
        await shown.kill()
        for each in alive(family):
            each.kill()
