"""What the rest of the media plane sees of a service's engine, be it one engine or a pool of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Protocol

from rtc_server.engine.model import MemoryUse, ModelInfo, PagesUse
from rtc_server.engine.stream import EngineStream, StreamListener
from rtc_server.engine.supervisor import EngineState
from rtc_server.errors import ModelLoadError

OnStall = Callable[[bool, Collection[StreamListener]], None]
"""Called with True when an engine falls silent, with False when it goes on, and the listeners of its streams."""


class Engine(Protocol):
    """:class:`rtc_server.engine.client.EngineClient` says what each of these means of one engine, and
    :class:`rtc_server.cluster.pooled.PooledEngine` of several."""

    service: str
    shared: bool
    """Whether media nodes on other machines reach it as well, and can go on in each other's slots."""
    on_stall: OnStall

    @property
    def info(self) -> ModelInfo | None: ...

    @property
    def memory(self) -> MemoryUse: ...

    @property
    def pages(self) -> PagesUse | None: ...

    @property
    def state(self) -> EngineState: ...

    @property
    def ready(self) -> bool: ...

    @property
    def failure(self) -> ModelLoadError | None: ...

    @property
    def restarts(self) -> int: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def slots_used(self) -> int: ...

    @property
    def slots_asked_for(self) -> int: ...

    @property
    def has_room(self) -> bool: ...

    @property
    def coming(self) -> bool: ...

    @property
    def starts_in_s(self) -> float | None: ...

    @property
    def step_p50_ms(self) -> float | None: ...

    @property
    def step_p95_ms(self) -> float | None: ...

    @property
    def step_with_another_ms(self) -> float | None: ...

    def start(self) -> None: ...

    def require_ready(self) -> None: ...

    async def wait_settled(self) -> None: ...

    async def wait_ready(self) -> None: ...

    async def wait_room(self) -> None: ...

    def queued(self) -> AbstractContextManager[None]: ...

    async def open(self, listener: StreamListener, spare: bool = False, queued: bool = False) -> EngineStream: ...

    async def adopt(self, key: bytes, listener: StreamListener) -> EngineStream: ...

    async def close(self) -> None: ...
