"""Fixtures that many tests share: a running server, and what a test may miss."""

from __future__ import annotations

import contextlib
import gc
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio
from hypothesis import settings

from lab.serving import started
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.client import VoiceClient
from rtc_server.config import parse
from rtc_server.engine.client import EngineClient
from rtc_server.engine.link import EngineLink

# pytest finds hooks in here by their names.
from tests.support.log_watch import (  # noqa: F401
    pytest_configure,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_unconfigure,
)
from tests.support.missing import skip_but_in_ci
from tests.support.shares import pytest_runtest_logstart, pytest_xdist_make_scheduler  # noqa: F401

# Slow, shared cores: an example that takes long says nothing of the code.
settings.register_profile("default", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=15)  # of "make test-fast"
settings.load_profile("default")


def pytest_collection_finish() -> None:
    """What all tests have imported is there to stay: no look for garbage has to walk through it again."""
    gc.enable()
    gc.collect()
    gc.freeze()


gc.disable()  # while thousands of tests are collected, which are none

UNLIMITED = (
    *("--offers-per-minute", "100000", "--sessions-per-address", "10000", "--connecting-per-address", "10000"),
    *("--max-lag-ms", "100000"),
)
"""All of a test's clients have one address, and their work is done in the server's loop, or beside it on a machine that
may have other things to do. Tests of these limits set their own, which win."""
NO_GRACE = ("--resume-grace-s", "0")
"""A session waits neither for its client nor for another engine."""

VoiceClient.wait_for.__defaults__ = (25.0,)  # what a machine with other work may take; a session is kept for longer

StartServer = Callable[..., AbstractAsyncContextManager[Server]]


def need_commands(*commands: str) -> None:
    """Skip the test where a program is missing, saying which; in CI, where everything can be installed, fail."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        skip_but_in_ci(f"needs {', '.join(missing)} (make system installs it, or says how)")


@contextlib.asynccontextmanager
async def running_server(*arguments: str) -> AsyncIterator[Server]:
    """A server in this process on a free port, ready; stopped without grace at the end."""
    server = Server(parse(["--port", "0", *UNLIMITED, *arguments], environment={}))
    async with started(server):
        yield server


@contextlib.asynccontextmanager
async def server_with(links: Mapping[str, Callable[[], EngineLink]], *arguments: str) -> AsyncIterator[Server]:
    """A server with engines of the test's own; the first is the default service."""
    settings = parse(["--port", "0", "--model", "echo", "--vad", "off", *UNLIMITED, *arguments], environment={})
    server = Server(
        settings,
        make_engines=lambda _, metrics: {name: EngineClient(name, link, metrics) for name, link in links.items()},
    )
    async with started(server):
        yield server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """An echo server."""
    async with running_server("--model", "echo") as running:
        yield running


@pytest.fixture
def base_url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


ON_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")
"""Of tests that take a server that all of their file share: it runs in the event loop in which it was started."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded_pico() -> AsyncIterator[Server]:
    """The bundled model takes seconds to load."""
    need_commands("espeak-ng")
    async with running_server("--model", "pico", "--slots", "1", "--stt", "none", "--allow-slow") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def pico(loaded_pico: Server) -> AsyncIterator[Server]:
    """A server with the bundled model, as if it had just been started: without a session, its one slot free."""
    yield loaded_pico
    await until(lambda: not len(loaded_pico.registry), "the end of the session")
    await until(lambda: not loaded_pico.engines["dialogue"].slots_used, "its slot")
