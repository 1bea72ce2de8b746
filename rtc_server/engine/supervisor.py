"""Keeps one engine alive: starts it, sees whether it answers, and starts another when it has ended.

Owns the link, the state and the pauses between tries. What an engine says goes on to its owner; of streams and slots
nothing is known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rtc_server.engine.link import Link
from rtc_server.engine.messages import LoadFailed, Ping
from rtc_server.engine.pulse import Pulse, quiet_s
from rtc_server.errors import ModelLoadError
from rtc_server.metrics import Metrics
from rtc_server.system.tasks import to_the_end

logger = logging.getLogger(__name__)

To = TypeVar("To")
From = TypeVar("From")
STALL_TIMEOUT_S: Final = 20.0
"""Silence after which an engine is killed, for it will not come back."""
_LOOK_S: Final = 0.25
"""How often to look whether it has said something."""
_RESTART_PAUSES_S: Final = (0.2, 1.0, 2.0, 5.0, 10.0)
_FIRST_TRIES: Final = 3
"""Engines that end before they were ever ready, for a reason of no known kind, after which there is no model."""


class EngineState(enum.StrEnum):
    LOADING = "loading"
    READY = "ready"
    STALLED = "stalled"
    """Loaded, with conversations in it, and silent for longer than is usual: takes no others."""
    RESTARTING = "restarting"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class EngineOwner(Generic[From]):
    """What a supervisor tells and asks. All are called on the event loop; none may block or raise.

    ``on_message``: what the engine says, but for why it cannot be loaded. ``on_stall``: True when a loaded engine falls
    silent, False when it goes on. ``on_lost``: it has ended, and what was in it is gone. ``steps_s``: how long its last
    steps took, and the one that was timed. ``tells_ready``: whether a message says that its model is loaded.
    ``on_unloadable``: it cannot be loaded, for the first time or again.
    """

    on_message: Callable[[From], None]
    on_stall: Callable[[bool], None]
    on_lost: Callable[[], None]
    steps_s: Callable[[], Iterable[float]]
    tells_ready: Callable[[From], bool]
    on_unloadable: Callable[[], None] = lambda: None


class Supervisor(Generic[To, From]):
    """Of ``service``. ``make_link`` makes the link of each (re)start; an engine that is silent for longer than
    ``stall_timeout_s`` ends. ``failure``: why there is no engine and never will be; ``load_failure``: why the last one
    could not be loaded, until one is."""

    def __init__(
        self,
        service: str,
        make_link: Callable[[], Link[To, From]],
        metrics: Metrics,
        owner: EngineOwner[From],
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self.state = EngineState.LOADING
        self.failure: ModelLoadError | None = None
        self.load_failure: ModelLoadError | None = None
        self.restarts = 0
        self._starts_at = 0.0
        """When the start that is under way began, or will begin."""
        self._start_took_s: float | None = None
        self._service = service
        self._make_link = make_link
        self._metrics = metrics
        self._owner = owner
        self._stall_timeout_s = stall_timeout_s
        self._link: Link[To, From] | None = None
        self._task: asyncio.Task[None] | None = None
        self._pulse = Pulse(0.0)
        self._settled = asyncio.Event()
        self._became_ready = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def ready(self) -> bool:
        return self.state is EngineState.READY

    @property
    def loaded(self) -> bool:
        return self.state in (EngineState.READY, EngineState.STALLED)

    @property
    def coming(self) -> bool:
        """Whether an engine is being started, and nothing is known that stands in its way."""
        return self.state in (EngineState.LOADING, EngineState.RESTARTING) and self.load_failure is None

    @property
    def starts_in_s(self) -> float | None:
        """In how many seconds it will be there, by what the last start took; None if it is not coming, or the first."""
        if not self.coming or self._start_took_s is None:
            return None
        return max(0.0, self._start_took_s - (time.monotonic() - self._starts_at))

    @property
    def pid(self) -> int | None:
        return self._link.pid if self._link is not None and self.loaded else None

    def start(self) -> None:
        """Start loading; :meth:`wait_settled` tells how it went."""
        assert self._task is None, "started once"
        self._task = asyncio.create_task(self._supervise(), name=f"engine-{self._service}")

    async def wait_settled(self) -> None:
        """Wait until the engine is ready. Raises ModelLoadError if it never will be."""
        await self._settled.wait()
        if self.failure is not None:
            raise self.failure

    async def wait_ready(self) -> None:
        """Wait until the engine can be used, for the first time or again. Safe to cancel; for ever, if it never is."""
        while not self.ready:
            self._became_ready.clear()
            await self._became_ready.wait()

    async def close(self) -> None:
        """Stop the engine, and start no other. The owner is not told. Idempotent."""
        self.state = EngineState.CLOSED
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def send(self, message: To | Ping) -> bool:
        """Never blocks; False if the engine did not take it, or there is none."""
        return self._link is not None and self._link.send(message)

    async def _supervise(self) -> None:
        failures = 0
        while True:
            try:
                was_ready = await self._run_engine()
            except Exception:  # the border of a task: no memory or descriptor just now does not mean for ever
                logger.exception("engine %s could not be run", self._service)
                was_ready = False
            if self.failure is not None:
                return
            failures = 0 if was_ready else failures + 1
            if failures >= _FIRST_TRIES and not self._settled.is_set():
                hint = "Its log says why; rtc-server check says what this machine lacks."
                self._give_up(ModelLoadError(f"The engine of {self._service} ends before its model is loaded.", hint))
                return
            self.restarts += 1
            self._metrics.engine_restarts.labels(self._service).inc()
            pause_s = _RESTART_PAUSES_S[min(failures, len(_RESTART_PAUSES_S) - 1)]
            self._starts_at = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)

    async def _run_engine(self) -> bool:
        """One life of the engine; returns whether it ever was ready."""
        self._ended.clear()
        self._pulse = Pulse(min(_LOOK_S, self._stall_timeout_s / 4))
        link = self._make_link()
        self._link = link
        self._starts_at = time.monotonic()
        try:
            await link.start(self._on_message, self._ended.set)
            while not self._ended.is_set() and self._alive():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pulse.every_s):
                        await self._ended.wait()
        finally:
            was_ready = self.loaded
            if self.state is not EngineState.CLOSED:
                self._lose_engine()
            self._link = None
            # An engine that is closed by half would stay behind.
            await to_the_end(link.close(), f"engine-close-{self._service}")
        return was_ready

    def _lose_engine(self) -> None:
        if self.failure is None:
            self.state = EngineState.RESTARTING
            self._starts_at = time.monotonic()
            logger.error("engine %s ended: restarting it", self._service)
        self._owner.on_lost()

    def _alive(self) -> bool:
        """Feel the pulse of an engine that is loaded. False if there is none, and will not be: a hung device, say."""
        if not self.loaded:
            return True
        silent_s = self._pulse.look(time.monotonic())
        if self._pulse.ask():
            self.send(Ping())
        if silent_s >= self._stall_timeout_s:
            logger.error("engine %s has not answered for %.0f s: killing it", self._service, silent_s)
            return False
        if self.ready and silent_s >= quiet_s(self._owner.steps_s()):
            self._stall(silent_s)
        return True

    def _stall(self, silent_s: float) -> None:
        self.state = EngineState.STALLED
        self._metrics.engine_stalls.labels(self._service).inc()
        logger.warning("engine %s has not answered for %.1f s", self._service, silent_s)
        self._owner.on_stall(True)

    def _on_message(self, message: From | LoadFailed) -> None:
        self._answered()
        if isinstance(message, LoadFailed):
            self._on_load_failed(message)
            return
        self._owner.on_message(message)
        if self._owner.tells_ready(message):
            self.load_failure = None
            self._start_took_s = time.monotonic() - self._starts_at
            self._become_ready()
            self._settled.set()

    def _answered(self) -> None:
        self._pulse.answered()
        if self.state is EngineState.STALLED:
            self._become_ready()
            logger.warning("engine %s answers again", self._service)
            self._owner.on_stall(False)

    def _become_ready(self) -> None:
        self.state = EngineState.READY
        self._became_ready.set()

    def _on_load_failed(self, failed: LoadFailed) -> None:
        if self._settled.is_set():  # it loaded before: the disk or the card may come back
            logger.error("engine %s cannot be loaded again: %s", self._service, failed.message)
            self._note_failure(ModelLoadError(failed.message, failed.hint))
        else:
            self._give_up(ModelLoadError(failed.message, failed.hint))
        self._ended.set()

    def _give_up(self, failure: ModelLoadError) -> None:
        self.failure = failure
        self.state = EngineState.FAILED
        self._settled.set()
        self._note_failure(failure)

    def _note_failure(self, failure: ModelLoadError) -> None:
        self.load_failure = failure
        self._owner.on_unloadable()
