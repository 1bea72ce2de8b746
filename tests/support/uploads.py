"""A server that transcribes files by a :class:`Scribe`, and how tests send it some."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any, Final

import aiohttp
import pytest

from lab.inputs.files import encode
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.config import Settings, parse
from rtc_server.engine.client import EngineClient
from rtc_server.engine.engine import Engine
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics
from rtc_server.services import make_engines
from tests.conftest import UNLIMITED
from tests.support.scribe import Scribe, numbered

EVENTS = {"Accept": "text/event-stream"}


ENGINE_ENDED: Final = "engine transcribe "
"""What tests that end an engine find in the log."""


@contextlib.contextmanager
def leaving_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a client does: no fault of ours in the log, no temporary file that is still open."""
    made: list[IO[bytes]] = []
    make = tempfile.TemporaryFile

    def watched() -> IO[bytes]:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    yield
    assert all(file.closed for file in made)
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    ours = [record for record in faults if record.name.startswith(("rtc_server", "asyncio", "aiohttp"))]
    assert not [record.getMessage() for record in ours if not record.getMessage().startswith(ENGINE_ENDED)]


class Held(Server):
    """A server that transcribes by a :class:`Scribe`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/transcribe"

    @property
    def engine(self) -> Engine:
        return self.engines["transcribe"]


@contextlib.asynccontextmanager
async def serving(
    *arguments: str, slots: int = 2, heads: int = 0, gate: threading.Event | None = None
) -> AsyncIterator[Held]:
    def engines(settings: Settings, metrics: Metrics) -> dict[str, Engine]:
        scribe = EngineClient("transcribe", lambda: LocalLink(lambda: Scribe(slots, heads, gate)), metrics)
        return {**make_engines(settings, metrics), "transcribe": scribe}

    settings = parse(["--port", "0", "--model", "echo", "--drain-s", "0", *UNLIMITED, *arguments], environment={})
    server = Held(settings, make_engines=engines)
    await server.start()
    try:
        await server.wait_ready()
        yield server
        await until(lambda: not server.engine.slots_used)
    finally:
        await server.stop(0.0)


async def post(
    url: str, data: Any, begun: asyncio.Event | None = None, **more: Any
) -> tuple[int, aiohttp.typedefs.LooseHeaders, str]:
    """``begun``: set when the answer has."""
    async with aiohttp.ClientSession() as http, http.post(url, data=data, **more) as response:
        if begun:
            begun.set()
        return response.status, response.headers, await response.text()


def code_of(text: str) -> str:
    return json.loads(text)["error"]["code"]  # type: ignore[no-any-return]


def events_of(text: str) -> list[tuple[str, Any]]:
    made = []
    for block in text.strip().split("\n\n"):
        if not block.startswith(":"):
            name, data = block.split("\n")
            made.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return made


async def stream(data: bytes, hold: asyncio.Event, after: int) -> AsyncIterator[bytes]:
    """A body that stops in the middle until it may go on."""
    yield data[:after]
    await hold.wait()
    yield data[after:]


WORDS = encode(numbered(1, 2, 0, 0, 3))
