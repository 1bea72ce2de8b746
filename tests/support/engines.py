"""Engines for tests: one whose part the test plays, one in a thread, one in a process; and an ear for what they say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np

from lab.waiting import until
from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.client import EngineClient
from rtc_server.engine.factory import ModelOptions, SlotOptions
from rtc_server.engine.link import EngineLink, OnExit, OnMessage
from rtc_server.engine.local import LocalLink
from rtc_server.engine.messages import Open, Opened, Ping, Pong, Ready, ToEngine
from rtc_server.engine.model import FloatArray, ModelInfo, ServiceKind, StreamingModel
from rtc_server.engine.process import ChildSpec, ProcessLink
from rtc_server.engine.stream import EngineStream, StreamOutput
from rtc_server.errors import ServerError
from rtc_server.metrics import Metrics
from tests.support.fake_models import CountingModel, FakeOptions

FAKES = "tests.support.fake_models"

READY = Ready(ModelInfo("fake", ServiceKind.DIALOGUE, 2, "cpu", True, True))


def frame(first: float = 0.5) -> FloatArray:
    pcm = np.full(FRAME_SAMPLES, 0.5, np.float32)
    pcm[0] = first
    return pcm


class Ear:
    """A stream's listener that keeps what it is told."""

    def __init__(self) -> None:
        self.pcm: list[FloatArray | None] = []
        self.texts: list[str] = []
        self.engine_s: list[float | None] = []
        self.frames: list[int] = []
        self.errors: list[ServerError] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def on_output(self, output: StreamOutput) -> None:
        self.pcm.append(output.pcm)
        self.texts.append(output.text)
        self.engine_s.append(output.engine_s)
        self.frames.append(output.frame)

    def on_engine_error(self, error: ServerError) -> None:
        self.errors.append(error)


class ScriptedLink:
    """An engine whose part the test plays: it keeps what is sent, and says what the test makes it say."""

    def __init__(self) -> None:
        self.sent: list[ToEngine] = []
        self.taking = self.living = True
        self.closed = False
        self.pings = 0
        self.say: OnMessage = lambda _: None
        self.end: OnExit = lambda: None
        self.pid = 4711

    async def start(self, on_message: OnMessage, on_exit: OnExit) -> None:
        self.say, self.end = on_message, on_exit
        self.say(READY)

    def send(self, message: ToEngine) -> bool:
        if isinstance(message, Ping):
            self.pings += 1
            if self.living:
                self.say(Pong())
        elif self.taking:
            self.sent.append(message)
        return self.taking

    async def close(self) -> None:
        self.closed = True


class Scripted:
    """A client over scripted links, the newest of which is :attr:`link`."""

    def __init__(self, stall_timeout_s: float = 60.0) -> None:
        self.links: list[ScriptedLink] = []
        self.metrics = Metrics()
        self.client = EngineClient("fake", self._make, self.metrics, stall_timeout_s)

    def _make(self) -> EngineLink:
        self.links.append(ScriptedLink())
        return self.links[-1]

    @property
    def link(self) -> ScriptedLink:
        return self.links[-1]

    async def open(self, slot: int = 0, generation: int = 1, ear: Ear | None = None) -> EngineStream:
        before = len(self.link.sent)
        opening = asyncio.create_task(self.client.open(ear or Ear()))
        await until(lambda: len(self.link.sent) > before)
        request = self.link.sent[-1]
        assert isinstance(request, Open)
        self.link.say(Opened(request.stream, slot, generation))
        return await opening

    def count(self, metric: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0


def is_empty(directory: Path) -> bool:
    return not any(directory.iterdir())


@contextlib.asynccontextmanager
async def running(client: EngineClient) -> AsyncIterator[EngineClient]:
    client.start()
    try:
        await client.wait_settled()
        yield client
    finally:
        await client.close()


def local(load: Callable[[], StreamingModel], stall_timeout_s: float = 60.0) -> EngineClient:
    return EngineClient("fake", lambda: LocalLink(load), Metrics(), stall_timeout_s)


def child(factory: str, options: ModelOptions, stall_timeout_s: float = 60.0) -> EngineClient:
    spec = ChildSpec(factory, options, log_level=logging.CRITICAL)
    return EngineClient("fake", lambda: ProcessLink(spec), Metrics(), stall_timeout_s)


def echo_child(slots: int = 2) -> EngineClient:
    return child("rtc_server.models.echo:load", SlotOptions(slots))


class Loads:
    """What each start of an engine loads: one of ``loads`` after the other, and the last from then on."""

    def __init__(self, *loads: Callable[[], StreamingModel]) -> None:
        self._loads = list(loads)

    def __call__(self) -> StreamingModel:
        return (self._loads.pop(0) if len(self._loads) > 1 else self._loads[0])()


KINDS = {
    "thread": lambda slots: local(lambda: CountingModel(slots)),
    "process": lambda slots: child(f"{FAKES}:counting", FakeOptions(slots)),
}
