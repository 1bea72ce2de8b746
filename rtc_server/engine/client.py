"""The media plane's face of an engine: open a stream, push frames, hear outputs.

Keeps one engine alive: when it ends, every open stream is told, and another is started, with a growing pause
between tries. Knows nothing of peers, codecs or HTTP, and never imports torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

import numpy as np

from rtc_server.engine.link import EngineLink
from rtc_server.engine.messages import (
    Close,
    Frame,
    FromEngine,
    LoadFailed,
    MemoryChanged,
    Open,
    Opened,
    Output,
    Ping,
    Pong,
    Ready,
    Refused,
    Reset,
    StepDone,
    ToEngine,
)
from rtc_server.engine.model import FloatArray, MemoryUse, ModelInfo, TokenMark
from rtc_server.engine.pulse import Pulse, quiet_s
from rtc_server.engine.slots import QUEUE_FRAMES
from rtc_server.errors import EngineFailed, EngineUnavailable, ModelLoadError, ServerError, ServerFull
from rtc_server.metrics import Metrics

logger = logging.getLogger(__name__)

_OPEN_TIMEOUT_S: Final = 5.0
_STALL_TIMEOUT_S: Final = 20.0
"""Silence after which an engine is killed, for it will not come back."""
_LOOK_S: Final = 0.25
"""How often to look whether it has said something."""
_RESTART_PAUSES_S: Final = (0.2, 1.0, 2.0, 5.0, 10.0)
_FIRST_TRIES: Final = 3
"""Engines that end before they were ever ready, for a reason of no known kind, after which there is no model."""
_RECENT_STEPS: Final = 64
_IN_FLIGHT_FRAMES: Final = 32
WINDOW_FRAMES: Final = QUEUE_FRAMES
"""Frames in flight that a stream which is not bound to real time may have without losing any."""


class EngineState(enum.StrEnum):
    LOADING = "loading"
    READY = "ready"
    STALLED = "stalled"
    """Loaded, with conversations in it, and silent for longer than is usual: takes no others."""
    RESTARTING = "restarting"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StreamOutput:
    """What the model made of one frame.

    ``frame``: its number, from 1 at the start of the stream or at its last reset. ``pcm``, ``text``, ``pauses``,
    ``mark``: see :class:`rtc_server.engine.model.RowOutput`. ``engine_s``: how long the frame was under way; None if
    that is not known any more.
    """

    frame: int
    pcm: FloatArray | None
    text: str
    pauses: tuple[float, ...]
    mark: TokenMark
    engine_s: float | None


class StreamListener(Protocol):
    """The one that opened a stream. Called on the event loop; must not block or raise."""

    def on_output(self, output: StreamOutput) -> None:
        """The model has made something of a frame."""

    def on_engine_error(self, error: ServerError) -> None:
        """The stream is dead."""


class EngineStream:
    """One slot, for as long as it is open."""

    def __init__(self, client: EngineClient, slot: int, generation: int, listener: StreamListener) -> None:
        self._client = client
        self._in_flight: dict[int, float] = {}
        self._seq = 0
        self._origin = 0
        self.listener = listener
        self.slot = slot
        self.generation = generation
        self.closed = False
        self._room = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Frames that were pushed and not answered yet. Up to :data:`WINDOW_FRAMES`, none of them
        is lost."""
        return len(self._in_flight)

    def push(self, pcm: FloatArray) -> bool:
        """Send a frame of 1,920 float32 samples. Never blocks; False if the engine did not take it."""
        if self.closed:
            return False
        self._seq += 1
        if len(self._in_flight) >= _IN_FLIGHT_FRAMES:
            self._in_flight.pop(next(iter(self._in_flight)))
        self._in_flight[self._seq] = time.monotonic()
        raw = np.ascontiguousarray(pcm, dtype=np.float32).tobytes()
        taken = self._client.send(Frame(self.slot, self.generation, self._seq, raw))
        if not taken:
            self._in_flight.pop(self._seq, None)
        return taken

    async def feed(self, pcm: FloatArray) -> bool:
        """Push a frame as soon as the engine has room for it, for audio that does not come in real time: nothing is
        dropped. False once the stream is closed. Safe to cancel: then the frame was not pushed."""
        while not self.closed and self.in_flight >= WINDOW_FRAMES:
            self._room.clear()
            await self._room.wait()
        return self.push(pcm)

    async def drained(self) -> None:
        """Until every frame that was pushed is answered, or the stream is closed."""
        while not self.closed and self.in_flight:
            self._room.clear()
            await self._room.wait()

    def lose(self, error: ServerError) -> None:
        """The engine is gone."""
        self.closed = True
        self._room.set()
        self.listener.on_engine_error(error)

    def reset(self) -> None:
        """Wipe the model's state; outputs of the conversation so far are not delivered any more."""
        if not self.closed:
            self._in_flight.clear()
            self._room.set()
            self._origin = self._seq
            self._client.reset_stream(self)

    def close(self) -> None:
        """Give the slot back. Idempotent."""
        if not self.closed:
            self.closed = True
            self._room.set()
            self._client.close_stream(self)

    def deliver(self, output: Output, now: float) -> float | None:
        """Hand one output to the listener; returns the time it was under way, in seconds."""
        sent = self._in_flight.pop(output.seq, None)
        self._room.set()
        engine_s = None if sent is None else now - sent
        pcm = None if output.pcm is None else np.frombuffer(output.pcm, dtype=np.float32)
        frame = output.seq - self._origin
        self.listener.on_output(StreamOutput(frame, pcm, output.text, output.pauses, output.mark, engine_s))
        return engine_s


class EngineClient:
    """One service's engine, kept alive. ``make_link`` makes the link of each (re)start.

    ``on_stall`` is called with True when a loaded engine falls silent, and with False when it goes on; streams stay
    open meanwhile. An engine that is silent for longer than ``stall_timeout_s`` ends.
    """

    def __init__(
        self,
        service: str,
        make_link: Callable[[], EngineLink],
        metrics: Metrics,
        stall_timeout_s: float = _STALL_TIMEOUT_S,
    ) -> None:
        self.service = service
        self.state = EngineState.LOADING
        self.info: ModelInfo | None = None
        self.memory = MemoryUse()
        self.failure: ModelLoadError | None = None
        self.restarts = 0
        self.on_stall: Callable[[bool], None] = lambda _: None
        self._make_link = make_link
        self._metrics = metrics
        metrics.slots_used.labels(service).set_function(lambda: self.slots_used)
        self._link: EngineLink | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._ended = asyncio.Event()
        self._stall_timeout_s = stall_timeout_s
        self._pulse = Pulse(0.0)
        self._timed_step_s = 0.0
        self._became_ready = asyncio.Event()
        self._streams: dict[tuple[int, int], EngineStream] = {}
        self._opening: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._next_stream = 0
        self._steps: deque[float] = deque(maxlen=_RECENT_STEPS)

    @property
    def ready(self) -> bool:
        return self.state is EngineState.READY

    @property
    def slots_used(self) -> int:
        """Slots that streams of this client hold."""
        return len(self._streams)

    @property
    def pid(self) -> int | None:
        return self._link.pid if self._link is not None and self._loaded else None

    @property
    def _loaded(self) -> bool:
        return self.state in (EngineState.READY, EngineState.STALLED)

    @property
    def step_p50_ms(self) -> float | None:
        """Median of the last steps, once there are enough to mean something."""
        if len(self._steps) < _RECENT_STEPS // 2:
            return None
        return statistics.median(self._steps) * 1000

    @property
    def step_p95_ms(self) -> float | None:
        """95th percentile of the same steps, in ms."""
        if len(self._steps) < _RECENT_STEPS // 2:
            return None
        return statistics.quantiles(self._steps, n=20)[-1] * 1000

    def start(self) -> None:
        """Start loading; :meth:`wait_settled` tells how it went."""
        assert self._supervisor is None, "started once"
        self._supervisor = asyncio.create_task(self._supervise(), name=f"engine-{self.service}")

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
        """Stop the engine. Open streams are not told: their owners have closed them. Idempotent."""
        self.state = EngineState.CLOSED
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._fail_opening()
        self._streams.clear()

    async def open(self, listener: StreamListener) -> EngineStream:
        """Take a slot. Raises ServerFull, EngineUnavailable. When cancelled, the slot goes back."""
        if not self.ready:
            raise EngineUnavailable
        self._next_stream += 1
        number = self._next_stream
        future: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        self._opening[number] = future
        try:
            if not self.send(Open(number)):
                raise EngineUnavailable
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                slot, generation = await future
        except (asyncio.CancelledError, TimeoutError) as error:
            # The answer may have come in the very moment in which we were told to stop waiting for it.
            if not future.cancelled() and future.done() and future.exception() is None:
                self.send(Close(*future.result()))
            if isinstance(error, TimeoutError):
                raise EngineUnavailable from None
            raise
        finally:
            self._opening.pop(number, None)
        stream = EngineStream(self, slot, generation, listener)
        self._streams[slot, generation] = stream
        return stream

    def send(self, message: ToEngine) -> bool:
        """Never blocks; False if the engine did not take it."""
        taken = self._link is not None and self._link.send(message)
        if not taken and isinstance(message, Frame):
            self._metrics.frames_dropped.labels("engine_busy" if self._loaded else "engine_gone").inc()
        return taken

    def reset_stream(self, stream: EngineStream) -> None:
        self._streams.pop((stream.slot, stream.generation), None)
        self.send(Reset(stream.slot, stream.generation))
        stream.generation += 1  # the engine counts on in the same way: no answer is needed
        self._streams[stream.slot, stream.generation] = stream

    def close_stream(self, stream: EngineStream) -> None:
        if self._streams.pop((stream.slot, stream.generation), None) is not None:
            self.send(Close(stream.slot, stream.generation))

    async def _supervise(self) -> None:
        failures = 0
        while True:
            try:
                was_ready = await self._run_engine()
            except Exception:  # the border of a task: no memory or descriptor just now does not mean for ever
                logger.exception("engine %s could not be run", self.service)
                was_ready = False
            if self.failure is not None:
                return
            failures = 0 if was_ready else failures + 1
            if failures >= _FIRST_TRIES and not self._settled.is_set():
                hint = "Its log says why; rtc-server check says what this machine lacks."
                self._give_up(ModelLoadError(f"The engine of {self.service} ends before its model is loaded.", hint))
                return
            self.restarts += 1
            self._metrics.engine_restarts.labels(self.service).inc()
            await asyncio.sleep(_RESTART_PAUSES_S[min(failures, len(_RESTART_PAUSES_S) - 1)])

    async def _run_engine(self) -> bool:
        """One life of the engine; returns whether it ever was ready."""
        self._ended.clear()
        self._pulse = Pulse(min(_LOOK_S, self._stall_timeout_s / 4))
        link = self._make_link()
        self._link = link
        try:
            await link.start(self._on_message, self._ended.set)
            while not self._ended.is_set() and self._alive():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pulse.every_s):
                        await self._ended.wait()
        finally:
            was_ready = self._loaded
            if self.state is not EngineState.CLOSED:
                self._lose_engine()
            self._link = None
            await _to_the_end(asyncio.create_task(link.close(), name=f"engine-close-{self.service}"))
        return was_ready

    def _alive(self) -> bool:
        """Feel the pulse of an engine that is loaded. False if there is none, and will not be: a hung device, say."""
        if not self._loaded:
            return True
        silent_s = self._pulse.look(time.monotonic())
        if self._pulse.ask():
            self.send(Ping())
        if silent_s >= self._stall_timeout_s:
            logger.error("engine %s has not answered for %.0f s: killing it", self.service, silent_s)
            return False
        if self.ready and silent_s >= quiet_s((self._timed_step_s, *self._steps)):
            self._stall(silent_s)
        return True

    def _stall(self, silent_s: float) -> None:
        self.state = EngineState.STALLED
        self._metrics.engine_stalls.labels(self.service).inc()
        logger.warning("engine %s has not answered for %.1f s", self.service, silent_s)
        self._fail_opening()
        self.on_stall(True)

    def _answered(self) -> None:
        self._pulse.answered()
        if self.state is EngineState.STALLED:
            self._become_ready()
            logger.warning("engine %s answers again", self.service)
            self.on_stall(False)

    def _become_ready(self) -> None:
        self.state = EngineState.READY
        self._became_ready.set()

    def _lose_engine(self) -> None:
        if self.failure is None:
            self.state = EngineState.RESTARTING
            logger.error("engine %s ended: restarting it", self.service)
        self._steps.clear()
        self._on_memory(MemoryUse())
        self._fail_opening()
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.lose(EngineFailed())

    def _fail_opening(self) -> None:
        opening, self._opening = self._opening, {}
        for future in opening.values():
            if not future.done():
                future.set_exception(EngineUnavailable())

    def _on_message(self, message: FromEngine) -> None:
        self._answered()
        match message:
            case StepDone():
                self._on_step(message)
            case Pong():
                pass
            case Opened():
                self._on_opened(message)
            case Refused():
                future = self._opening.get(message.stream)
                if future is not None and not future.done():
                    future.set_exception(ServerFull())
            case Ready():
                self._on_ready(message)
            case MemoryChanged():
                self._on_memory(message.memory)
            case LoadFailed():
                self._on_load_failed(message)
            case _:
                assert_never(message)

    def _on_ready(self, ready: Ready) -> None:
        info = ready.info
        self._on_memory(ready.memory)
        self._timed_step_s = ready.step_s
        self.info = info
        self._become_ready()
        self._metrics.slots.labels(self.service).set(info.slots)
        logger.info("engine %s ready: %s on %s, %d slots", self.service, info.name, info.device, info.slots)
        self._settled.set()

    def _on_memory(self, memory: MemoryUse) -> None:
        self.memory = memory
        held = {"weights": memory.weights_bytes, "cache": memory.cache_bytes, "rest": memory.rest_bytes}
        for kind, amount in held.items():
            self._metrics.engine_memory_bytes.labels(self.service, kind).set(amount)
        if memory.device_total_bytes:
            self._metrics.device_memory_bytes.labels(self.service, "free").set(memory.device_free_bytes)
            self._metrics.device_memory_bytes.labels(self.service, "total").set(memory.device_total_bytes)

    def _on_load_failed(self, failed: LoadFailed) -> None:
        if self._settled.is_set():  # it loaded before: the disk or the card may come back
            logger.error("engine %s cannot be loaded again: %s", self.service, failed.message)
            self._ended.set()
            return
        self._give_up(ModelLoadError(failed.message, failed.hint))
        self._ended.set()

    def _give_up(self, failure: ModelLoadError) -> None:
        self.failure = failure
        self.state = EngineState.FAILED
        self._settled.set()

    def _on_opened(self, opened: Opened) -> None:
        future = self._opening.get(opened.stream)
        if future is None or future.done():  # the caller has gone: timed out or cancelled
            self.send(Close(opened.slot, opened.generation))
            return
        future.set_result((opened.slot, opened.generation))

    def _on_step(self, done: StepDone) -> None:
        self._steps.append(done.seconds)
        self._metrics.step_seconds.labels(self.service).observe(done.seconds)
        self._metrics.step_rows.labels(self.service).observe(len(done.outputs))
        if done.dropped:
            self._metrics.frames_dropped.labels("engine_queue").inc(done.dropped)
        now = time.monotonic()
        for output in done.outputs:
            stream = self._streams.get((output.slot, output.generation))
            if stream is None:
                self._metrics.frames_dropped.labels("stale").inc()
                continue
            engine_s = stream.deliver(output, now)
            if engine_s is not None:
                self._metrics.frame_seconds.labels(self.service).observe(engine_s)


async def _to_the_end(task: asyncio.Task[None]) -> None:
    """Wait for ``task`` even when cancelled meanwhile: an engine that is closed by half would stay behind."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
