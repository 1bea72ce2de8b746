"""The media plane's face of an engine: its streams, how they are opened, and what is known of it.

Finds the stream that a message is for. That there is an engine is the work of
:class:`rtc_server.engine.supervisor.Supervisor`; what goes through a stream, of
:class:`rtc_server.engine.stream.EngineStream`. Knows nothing of peers, codecs or HTTP, and never imports torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Final, assert_never

from rtc_server.engine.engine import OnStall
from rtc_server.engine.link import EngineLink
from rtc_server.engine.messages import (
    Adopt,
    CannotMove,
    Close,
    Exported,
    Frame,
    FromEngine,
    Import,
    LoadFailed,
    Lost,
    MemoryChanged,
    NotFound,
    Open,
    Opened,
    OtherVersion,
    Part,
    Pong,
    Ready,
    Refused,
    StepDone,
    Stranger,
    Taken,
    ToEngine,
)
from rtc_server.engine.model import MemoryUse, ModelInfo, PagesUse
from rtc_server.engine.step_times import StepTimes
from rtc_server.engine.stream import EngineStream, StreamListener
from rtc_server.engine.supervisor import STALL_TIMEOUT_S, EngineOwner, EngineState, Supervisor
from rtc_server.errors import (
    EngineFailed,
    EngineUnavailable,
    ModelLoadError,
    ResumedElsewhere,
    ResumeRefused,
    ServerError,
    ServerFull,
)
from rtc_server.metrics import Metrics

logger = logging.getLogger(__name__)

_OPEN_TIMEOUT_S: Final = 5.0
_ASKED_AT_ONCE: Final = 32
"""Slots. An engine on another machine answers each with a message, and drops those that more wait for than
:mod:`rtc_server.engine.sockets` lets wait: after the death of an engine all its conversations ask another at once."""
MAX_RETRY_S: Final = 60


class EngineClient:
    """One service's engine, kept alive. ``make_link`` makes the link of each (re)start. ``shared``: media nodes on
    other machines reach it as well.

    ``on_stall`` is called with True when a loaded engine falls silent, and with False when it goes on, and with the
    listeners of its streams, which stay open meanwhile. An engine that is silent for longer than ``stall_timeout_s``
    ends.
    """

    def __init__(
        self,
        service: str,
        make_link: Callable[[], EngineLink],
        metrics: Metrics,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        shared: bool = False,
    ) -> None:
        self.service = service
        self.shared = shared
        self.info: ModelInfo | None = None
        self.memory = MemoryUse()
        self.pages: PagesUse | None = None
        """The memory that all slots share, as the engine told it last; None where each has its own."""
        self.on_stall: OnStall = lambda stalled, listeners: None
        self.on_news: Callable[[], None] = lambda: None
        """Called when there may be a slot that there was not before, or when it is clear that there will be none."""
        self._news = asyncio.Event()
        self._metrics = metrics
        metrics.slots_used.labels(service).set_function(lambda: self.slots_used)
        owner = EngineOwner(
            self._on_message,
            self._on_stall,
            self._on_lost,
            steps_s=lambda: (self._timed_step_s, *self._steps.seconds),
            tells_ready=lambda message: isinstance(message, Ready),
            on_unloadable=self._tell_news,
        )
        self._supervisor = Supervisor(service, make_link, metrics, owner, stall_timeout_s)
        self._streams: dict[int, EngineStream] = {}
        self._spare: list[EngineStream] = []
        self._openings: dict[int, asyncio.Future[Opened]] = {}
        self._last_opening = 0
        self._asking = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._engines_lost = 0
        self._slots_elsewhere = 0
        self._opened_since = 0
        """Slots of this client that the engine did not know of yet when it told of its pages."""
        self._timed_step_s = 0.0
        self._steps = StepTimes()

    @property
    def state(self) -> EngineState:
        return self._supervisor.state

    @property
    def ready(self) -> bool:
        return self._supervisor.ready

    @property
    def failure(self) -> ModelLoadError | None:
        """Why there is no engine and never will be."""
        return self._supervisor.failure

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts

    @property
    def pid(self) -> int | None:
        """The process that holds the model, if it is loaded."""
        return self._supervisor.pid

    @property
    def slots_used(self) -> int:
        """Slots that streams of this client hold."""
        return len(self._streams)

    @property
    def slots_asked_for(self) -> int:
        """Callers that wait in :meth:`open` for a slot."""
        return len(self._openings)

    @property
    def slots_lent(self) -> int:
        """Those of the slots used that go to the next caller who asks for one of its own."""
        return len(self._spare)

    @property
    def slots_taken(self) -> int:
        """Slots that callers of this client have, or ask for, and those of other media nodes."""
        return self.slots_used + self.slots_asked_for + self._slots_elsewhere

    @property
    def slots_free(self) -> int:
        """Slots that are not taken."""
        return 0 if self.info is None or not self.ready else max(0, self.info.slots - self.slots_taken)

    @property
    def room(self) -> int:
        """For how many newcomers there is a slot, and memory."""
        if self.pages is None:
            return self.slots_free
        return max(0, min(self.slots_free, self.pages.newcomers - self._opened_since - self.slots_asked_for))

    @property
    def has_room(self) -> bool:
        """Whether there is a slot for a newcomer."""
        return self.room > 0

    @property
    def coming(self) -> bool:
        """Whether there is no engine just now, and one is being started."""
        return self._supervisor.coming

    @property
    def starts_in_s(self) -> float | None:
        """In how many seconds it will be there; None if it is not coming, or that is not known."""
        return self._supervisor.starts_in_s

    @property
    def step_p50_ms(self) -> float | None:
        """Median of the last steps, once there are enough to mean something."""
        return _ms(self._steps.p50)

    @property
    def step_p95_ms(self) -> float | None:
        """95th percentile of the same steps, in ms."""
        return _ms(self._steps.p95)

    @property
    def step_with_another_ms(self) -> float | None:
        """What a step is expected to take with all conversations in it and one more, however many had a frame in the
        last ones; no less than their median."""
        return _ms(self._steps.expected(self.slots_used + self._slots_elsewhere + 1))

    def start(self) -> None:
        """Start loading; :meth:`wait_settled` tells how it went."""
        self._supervisor.start()

    async def wait_settled(self) -> None:
        """Wait until the engine is ready. Raises ModelLoadError if it never will be."""
        await self._supervisor.wait_settled()

    async def wait_ready(self) -> None:
        """Wait until the engine can be used, for the first time or again. Safe to cancel; for ever, if it never is."""
        await self._supervisor.wait_ready()

    async def wait_room(self) -> None:
        """Until there seems to be a slot that is not taken. Safe to cancel; for ever, if there never is. Raises
        EngineFailed if the model cannot be loaded."""
        while not self.has_room:
            if self._supervisor.load_failure is not None:
                raise EngineFailed
            self._news.clear()
            await self._news.wait()

    def queued(self) -> contextlib.AbstractContextManager[None]:
        """A caller waits for a slot as long as the context lasts: one engine has as many slots for that as without."""
        return contextlib.nullcontext()

    def require_ready(self) -> None:
        """Raises EngineUnavailable, with the time after which it will be ready, where that is known."""
        if not self.ready:
            error = EngineUnavailable()
            if (starts_in_s := self.starts_in_s) is not None:
                error.retry_after_s = min(MAX_RETRY_S, max(1, math.ceil(starts_in_s)))
            raise error

    async def abandon(self) -> None:
        """The engine is known to have ended: tell its streams, and close."""
        self._on_lost()
        await self.close()

    async def close(self) -> None:
        """Stop the engine. Open streams are not told: their owners have closed them. Idempotent."""
        await self._supervisor.close()
        self._fail_openings()
        self._streams.clear()
        self._spare.clear()

    async def open(self, listener: StreamListener, spare: bool = False, queued: bool = False) -> EngineStream:
        """Take a slot. Raises ServerFull, EngineUnavailable. When cancelled, the slot goes back.

        ``spare``: the slot is only lent. Where all are taken, the next caller that asks for one of its own gets that
        of the newest such stream, whose listener is told ServerFull. ``queued``: the caller is in :meth:`queued`.
        """
        while True:
            try:
                stream = await self._ask(Open, listener)
            except ServerFull:
                if spare or not self._take_back():
                    raise
            else:
                if spare:
                    self._spare.append(stream)
                return stream

    async def adopt(self, key: bytes, listener: StreamListener) -> EngineStream:
        """Go on in the slot that :meth:`rtc_server.engine.stream.EngineStream.lock` locked with the digest of ``key``,
        of this or another media node, with all that the model remembers. Its frames are counted on. Raises
        ResumeRefused if there is no such slot, or not any more; EngineUnavailable."""
        return await self._ask(lambda number: Adopt(number, key), listener)

    async def open_for_row(self, row_format: str, heard: int, listener: StreamListener) -> EngineStream:
        """Take a slot into which the row of a stream of another engine is put, which has heard so many frames. Raises
        ServerFull, also where the engine takes no such rows; EngineUnavailable."""
        return await self._ask(lambda number: Import(number, row_format, heard), listener)

    @property
    def streams(self) -> list[EngineStream]:
        """Those that are open."""
        return list(self._streams.values())

    def is_lent(self, stream: EngineStream) -> bool:
        """Whether the slot of a stream of this client goes to the next caller who asks for one of its own."""
        return stream in self._spare

    def receive(self, stream: EngineStream, lent: bool) -> None:
        """A stream of another client goes on in a slot of this one."""
        self._streams[stream.slot] = stream
        if lent:
            self._spare.append(stream)

    def _take_back(self) -> bool:
        """End the newest stream whose slot is only lent. False if there is none."""
        if not self._spare:
            return False
        stream = self._spare[-1]
        stream.close()  # the engine reads this before the next request for a slot
        stream.lose(ServerFull())
        return True

    async def _ask(self, question: Callable[[int], ToEngine], listener: StreamListener) -> EngineStream:
        """Ask for a slot by the message that ``question`` makes of the number of the asking."""
        self.require_ready()
        self._last_opening += 1
        number = self._last_opening
        lost = self._engines_lost
        future: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._openings[number] = future
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S), self._asking:
                if not future.done() and not self._send(question(number)):  # done: lost while others asked
                    raise EngineUnavailable
                opened = await future
            if lost != self._engines_lost:  # in the very moment of its answer: the slot is of an engine that is gone
                raise EngineUnavailable
        except (asyncio.CancelledError, TimeoutError) as error:
            # The answer may have come in the very moment in which we were told to stop waiting for it.
            if not future.cancelled() and future.done() and future.exception() is None:
                self._send(_close(future.result()))
            if isinstance(error, TimeoutError):
                raise EngineUnavailable from None
            raise
        finally:
            self._openings.pop(number, None)
        if not self._streams:
            self._steps.clear()  # of a load that is long over
        stream = EngineStream(opened, listener, self._send, self._forget)
        self._streams[stream.slot] = stream
        return stream

    def _send(self, message: ToEngine) -> bool:
        """Never blocks; False if the engine did not take it."""
        taken = self._supervisor.send(message)
        if not taken and isinstance(message, Frame):
            self._metrics.frames_dropped.labels("engine_busy" if self._supervisor.loaded else "engine_gone").inc()
        return taken

    def _forget(self, stream: EngineStream) -> None:
        if self._streams.get(stream.slot) is stream:
            del self._streams[stream.slot]
        if stream in self._spare:
            self._spare.remove(stream)
        self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self.on_news()

    def _fail_openings(self) -> None:
        openings, self._openings = self._openings, {}
        for future in openings.values():
            if not future.done():
                future.set_exception(EngineUnavailable())

    def _on_stall(self, stalled: bool) -> None:
        if stalled:
            self._fail_openings()
        self.on_stall(stalled, [stream.listener for stream in self._streams.values()])
        self._tell_news()

    def _on_lost(self) -> None:
        self._engines_lost += 1
        self._slots_elsewhere = 0
        self._on_pages(None)
        self._steps.clear()
        self._on_memory(MemoryUse())
        self._fail_openings()
        streams, self._streams = list(self._streams.values()), {}
        self._spare.clear()
        for stream in streams:
            stream.lose(EngineFailed())

    def _on_message(self, message: FromEngine) -> None:
        match message:
            case StepDone():
                self._on_step(message)
            case Opened():
                self._on_opened(message)
            case Refused():
                self._refuse(message.stream, ServerFull())
            case NotFound():
                self._refuse(message.stream, ResumeRefused())
            case Lost():
                self._on_adopted(message)
            case Pong():
                self._slots_elsewhere = message.elsewhere
                self._on_pages(message.pages)
                self._tell_news()
            case Ready():
                self._on_ready(message)
            case MemoryChanged():
                self._on_memory(message.memory)
            case Exported() | Part() | Taken() | CannotMove():
                stream = self._streams.get(message.slot)
                if stream is not None and stream.generation == message.generation and stream.tape is not None:
                    stream.tape.told(message)
            case LoadFailed() | OtherVersion() | Stranger():
                pass  # for the supervisor, and for the link
            case _:
                assert_never(message)

    def _refuse(self, number: int, error: ServerError) -> None:
        future = self._openings.get(number)
        if future is not None and not future.done():
            future.set_exception(error)

    def _on_adopted(self, lost: Lost) -> None:
        """Another media node goes on in the slot; the stream's own close would be stale."""
        stream = self._streams.get(lost.slot)
        if stream is not None:
            self._forget(stream)
            stream.lose(ResumedElsewhere())

    def _on_ready(self, ready: Ready) -> None:
        info = ready.info
        self._on_memory(ready.memory)
        self._on_pages(ready.pages)
        self._timed_step_s = ready.step_s
        self.info = info
        self._tell_news()
        self._metrics.slots.labels(self.service).set(info.slots)
        logger.info("engine %s ready: %s on %s, %d slots", self.service, info.name, info.device, info.slots)

    def _on_memory(self, memory: MemoryUse) -> None:
        self.memory = memory
        held = {"weights": memory.weights_bytes, "cache": memory.cache_bytes, "rest": memory.rest_bytes}
        for kind, amount in held.items():
            self._metrics.engine_memory_bytes.labels(self.service, kind).set(amount)
        if memory.device_total_bytes:
            self._metrics.device_memory_bytes.labels(self.service, "free").set(memory.device_free_bytes)
            self._metrics.device_memory_bytes.labels(self.service, "total").set(memory.device_total_bytes)

    def _on_pages(self, pages: PagesUse | None) -> None:
        if pages is not None or self.pages is not None:
            of_service = self._metrics.pages.labels
            of_service(self.service, "free").set(0 if pages is None else pages.free)
            of_service(self.service, "total").set(0 if pages is None else pages.total)
        self.pages = pages
        self._opened_since = 0

    def _on_opened(self, opened: Opened) -> None:
        future = self._openings.get(opened.stream)
        if future is None or future.done():  # the caller has gone: timed out or cancelled
            self._send(_close(opened))
            return
        self._opened_since += 1
        future.set_result(opened)

    def _on_step(self, done: StepDone) -> None:
        self._steps.add(done.seconds, done.rows)
        if done.rows:
            self._metrics.step_seconds.labels(self.service).observe(done.seconds)
            self._metrics.step_rows.labels(self.service).observe(done.rows)
        if done.dropped:
            self._metrics.frames_dropped.labels("engine_queue").inc(done.dropped)
        now = time.monotonic()
        for output in done.outputs:
            stream = self._streams.get(output.slot)
            if stream is None or stream.generation != output.generation:
                self._metrics.frames_dropped.labels("stale").inc()
                continue
            engine_s = stream.deliver(output, now)
            if engine_s is not None:
                self._metrics.frame_seconds.labels(self.service).observe(engine_s)


def _close(opened: Opened) -> Close:
    """Give back what no caller waits for any more."""
    return Close(opened.slot, opened.generation)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
