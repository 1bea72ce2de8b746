"""The engine's core: messages in, one batched step at a time, messages out.

Owns the slot table and the model. Knows no transport and no clock: both are handed to :func:`run`. Two kinds
of error: a bad message costs itself; an exception from the model costs the engine, for its device cannot be
trusted any more, and the process that started it starts another.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable
from typing import Protocol, assert_never

import numpy as np

from rtc_server import audio
from rtc_server.engine.batching import Rhythm
from rtc_server.engine.inbox import Arrival
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
    Stop,
    ToEngine,
)
from rtc_server.engine.model import RowOutput, StreamingModel
from rtc_server.engine.realtime import Clocks, RealTime, check_pace
from rtc_server.engine.slots import SlotTable
from rtc_server.errors import ModelLoadError

logger = logging.getLogger(__name__)

_FRAME_BYTES = audio.FRAME_SAMPLES * np.dtype(np.float32).itemsize
_MEMORY_EVERY_S = 10.0


class EnginePort(Protocol):
    """The engine's end of a transport."""

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        """Take the messages that have arrived, each with its time by the clock of :func:`run`. Waits up to ``wait_s``
        until something has, for ever if that is None (or until the other side is gone, which reads as
        :class:`Stop`)."""

    def send(self, message: FromEngine) -> None:
        """Never blocks: a reader that has stalled loses the message."""


class EngineCore:
    """A model and its slots. ``step_s``: how long a step took when it was timed."""

    def __init__(self, model: StreamingModel, step_s: float = 0.0) -> None:
        self._model = model
        self._step_s = step_s
        self._table = SlotTable(model.info.slots)
        self._rhythm = Rhythm(model.info.slots)
        self._memory = model.memory()
        self._memory_due_s = -math.inf
        self.stopped = False

    def wait_s(self, now_s: float) -> float | None:
        """How long to wait before the next step: 0 if it is due, None as long as there is no frame."""
        return self._rhythm.wait_s(now_s) if self._table.has_frames else None

    def ready(self) -> Ready:
        return Ready(self._model.info, self._memory, self._step_s)

    def memory_change(self, now: float) -> MemoryChanged | None:
        """The model's memory, if it has changed since the last report; looked up every ten seconds."""
        if now < self._memory_due_s:
            return None
        self._memory_due_s = now + _MEMORY_EVERY_S
        memory = self._model.memory()
        if memory == self._memory:
            return None
        self._memory = memory
        return MemoryChanged(memory)

    def handle(self, message: ToEngine, at_s: float) -> FromEngine | None:
        """Take one message, which came at ``at_s``; returns the answer, if it has one."""
        match message:
            case Frame():
                self._push(message, at_s)
            case Open():
                lease = self._table.open()
                return Opened(message.stream, *lease) if lease else Refused(message.stream)
            case Reset():
                self._table.reset(message.slot, message.generation)
            case Close():
                self._table.close(message.slot, message.generation)
            case Ping():
                return Pong()
            case Stop():
                self.stopped = True
            case _:
                assert_never(message)
        return None

    def wipe(self) -> None:
        """Clear the rows whose conversation is over; now rather than when the next one starts, so that
        nothing said lingers."""
        mask = self._table.take_wipes()
        if mask is not None:
            self._model.reset(mask)

    def step(self, clock: Callable[[], float]) -> StepDone | None:
        """Advance every slot that has a frame. None if none has."""
        plan = self._table.plan()
        if plan is None:
            return None
        started = clock()
        made = self._model.step(plan.pcm, plan.active)
        seconds = clock() - started
        self._rhythm.stepped(seconds, self._table.has_frames)
        outputs = [_output(row, made[row[0]]) for row in plan.rows]
        return StepDone(seconds, self._table.take_dropped(), outputs)

    def _push(self, frame: Frame, at_s: float) -> None:
        if len(frame.pcm) != _FRAME_BYTES:
            logger.warning("slot %d: a frame of %d bytes was refused", frame.slot, len(frame.pcm))
            return
        pcm = audio.sanitise(np.frombuffer(frame.pcm, dtype=np.float32))
        if self._table.push(frame.slot, frame.generation, frame.seq, pcm):
            self._rhythm.came(frame.slot, at_s)


def _output(row: tuple[int, int, int], made: RowOutput | None) -> Output:
    slot, generation, seq = row
    if made is None:
        return Output(slot, generation, seq, None, "")
    pcm = None if made.pcm is None else audio.sanitise(made.pcm).tobytes()
    return Output(slot, generation, seq, pcm, made.text, made.pauses, made.mark)


def serve(
    load: Callable[[], StreamingModel],
    port: EnginePort,
    clocks: Clocks,
    real_time: RealTime = RealTime.UNMEASURED,
) -> bool:
    """One life of an engine: load a model, warm it, see whether it keeps up, step it until told to stop. False if it
    could not be loaded, or is too slow, which the other side has then been told. Anything else that the model raises
    goes through."""

    stopped = False

    def rest(seconds: float) -> bool:
        nonlocal stopped
        stopped = any(isinstance(message, Stop) for message, _ in port.receive(seconds))
        return stopped

    with contextlib.ExitStack() as stack:
        try:
            model = load()
            stack.callback(model.close)
            model.warm_up()
            pace = check_pace(model, clocks, real_time, rest)
        except ModelLoadError as error:
            port.send(LoadFailed(error.message, error.hint))
            return False
        if stopped:
            return True
        step_ms = 0.0 if pace is None else max(pace.one_ms, pace.all_ms)
        run(EngineCore(model, step_ms / 1000), port, clocks.now)
    return True


def run(core: EngineCore, port: EnginePort, clock: Callable[[], float]) -> None:
    """The step loop: returns when it is told to stop. Anything the model raises goes through."""
    port.send(core.ready())
    while True:
        for message, at_s in port.receive(core.wait_s(clock())):
            reply = core.handle(message, at_s)
            if reply is not None:
                port.send(reply)
        if core.stopped:
            return
        core.wipe()
        if core.wait_s(clock()) != 0:
            continue
        done = core.step(clock)
        if done is not None:
            port.send(done)
            change = core.memory_change(clock())
            if change is not None:
                port.send(change)
