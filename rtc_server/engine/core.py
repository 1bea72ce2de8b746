"""The engine's core: messages in, one batched step at a time, messages out.

Owns the slot table and the model. Knows no transport and no clock: both are handed to :func:`run`. Two kinds
of error: a bad message costs itself; an exception from the model costs the engine, for its device cannot be
trusted any more, and the process that started it starts another.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

import numpy as np

from rtc_server import audio
from rtc_server.engine.batching import Rhythm
from rtc_server.engine.inbox import Arrival
from rtc_server.engine.messages import (
    PCM,
    PROTOCOL,
    Adopt,
    Close,
    Drain,
    Export,
    Fetch,
    Frame,
    FromEngine,
    Goodbye,
    Hello,
    Import,
    LoadFailed,
    Lock,
    Lost,
    MemoryChanged,
    NotFound,
    Open,
    Opened,
    OtherVersion,
    Output,
    Ping,
    Pong,
    Put,
    Ready,
    Refused,
    Reset,
    StepDone,
    Stop,
    Stranger,
    ToEngine,
)
from rtc_server.engine.model import (
    BoolArray,
    FloatArray,
    LaunchedStep,
    LaunchingModel,
    PagesUse,
    RowOutput,
    SharingModel,
    StreamingModel,
)
from rtc_server.engine.owners import GRACE_S, HOST, LOOK_S, Owner, Owners
from rtc_server.engine.realtime import Clocks, RealTime, check_pace
from rtc_server.engine.row_moves import RowMoves
from rtc_server.engine.slots import SlotTable
from rtc_server.errors import ModelLoadError

logger = logging.getLogger(__name__)

Answers = list[tuple[Owner, FromEngine]]
"""What goes out, each to one owner."""
_FRAME_BYTES = audio.FRAME_SAMPLES * np.dtype(PCM).itemsize
_MEMORY_EVERY_S = 10.0
_WORTH_HOLDING: Final = 16
"""Rows of a step. The outputs of fewer leave in less time than the launch of another step takes."""


class EnginePort(Protocol):
    """The engine's end of a transport."""

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        """Take the messages that have arrived, each with its time by the clock of :func:`run`. Waits up to ``wait_s``
        until something has, for ever if that is None (or until the other side is gone, which reads as
        :class:`Stop`)."""

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        """Never blocks: an owner that has stalled loses the message."""


@dataclass(slots=True)
class Step:
    """One step, from its launch on. ``rows`` as in :class:`rtc_server.engine.slots.StepPlan`; ``seconds``: how long it
    took, once it has been waited for."""

    rows: dict[Owner, list[tuple[int, int, int]]]
    launched: LaunchedStep
    started_s: float
    seconds: float = 0.0

    @property
    def size(self) -> int:
        """In rows."""
        return sum(map(len, self.rows.values()))


class _Computed:
    """A step that is computed when it is launched."""

    def __init__(self, made: list[RowOutput | None]) -> None:
        self._made = made

    def wait(self) -> None:
        pass

    def outputs(self) -> list[RowOutput | None]:
        return self._made


class EngineCore:
    """A model and its slots. ``step_s``: how long a step took when it was timed. ``grace_s``: for which the slots of an
    owner that has fallen silent are kept."""

    def __init__(self, model: StreamingModel, step_s: float = 0.0, grace_s: float = GRACE_S) -> None:
        self._model = model
        self._step_s = step_s
        self._owners = Owners(grace_s)
        self._table = SlotTable(model.info.slots)
        self._moves = RowMoves(model, self._table)
        self._apart = model if isinstance(model, LaunchingModel) and model.computes_apart else None
        self._sharing = model if isinstance(model, SharingModel) else None
        self._rhythm = Rhythm(model.info.slots)
        self._memory = model.memory()
        self._memory_due_s = -math.inf
        self._draining = False
        self._told_to_stop = False

    @property
    def stopped(self) -> bool:
        """Whether the engine is to end."""
        return self._told_to_stop or (self._draining and not self._table.used)

    @property
    def owners(self) -> Iterable[Owner]:
        """All that are to hear of what concerns each of them."""
        return self._owners

    @property
    def computes_apart(self) -> bool:
        """Whether the thread that steps has time while the model computes."""
        return self._apart is not None

    @property
    def wipe_due(self) -> bool:
        """Whether :meth:`wipe` has something to do."""
        return self._table.wipe_due

    def wait_s(self, now_s: float) -> float | None:
        """How long to wait before the next step: 0 if it is due, None as long as there is no frame, and nothing else to
        look after."""
        if self._table.has_frames:
            return self._rhythm.wait_s(now_s)
        return LOOK_S if self._owners.watched else None

    def ready(self) -> Ready:
        return Ready(self._model.info, self._memory, self._step_s, self._pages())

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

    def handle(self, message: ToEngine, at_s: float, owner: Owner = HOST) -> Answers:  # noqa: PLR0912 - a table
        """Take one message of ``owner``, which came at ``at_s``; returns what is to be said."""
        if owner not in self._owners and not isinstance(message, Hello):
            return [(owner, Stranger())]
        self._owners.heard(owner)
        answer: FromEngine | None = None
        match message:
            case Frame():
                self._push(message, at_s, owner)
            case Open():
                answer = self._open(message, owner)
            case Reset():
                self._table.reset(message.slot, message.generation, owner)
            case Close():
                self._table.close(message.slot, message.generation, owner)
            case Lock():
                lease = message.slot, message.generation
                self._table.lock(*lease, message.digest, owner, message.memo, at_s)
            case Adopt():
                return self._adopt(message, at_s, owner)
            case Export() | Fetch() | Import() | Put():
                answer = self._move(message, at_s, owner)
            case Ping():
                answer = Pong(self._table.used_elsewhere(owner), self._pages())
            case Hello():
                answer = self._greet(message, owner)
            case Goodbye():
                self._part(owner)
            case Drain() | Stop():
                self._draining = True
                self._told_to_stop = self._told_to_stop or isinstance(message, Stop)
            case _:
                assert_never(message)
        return [] if answer is None else [(owner, answer)]

    def look(self, now_s: float) -> None:
        """Take back the slots of owners that have been silent for too long."""
        for owner in self._owners.look(now_s):
            logger.warning("a media node has been silent for too long: its slots are taken back")
            self._table.close_all(owner)

    def wipe(self) -> None:
        """Clear the rows whose conversation is over; now rather than when the next one starts, so that
        nothing said lingers."""
        mask = self._table.take_wipes()
        if mask is not None:
            self._model.reset(mask)

    def step(self, clock: Callable[[], float]) -> dict[Owner, StepDone]:
        """Advance every slot that has a frame. Returns what was made, for each owner of such slots."""
        step = self.launch(clock)
        if step is None:
            return {}
        self.wait(step, clock)
        return self.outputs(step)

    def launch(self, clock: Callable[[], float]) -> Step | None:
        """Begin a step of every slot that has a frame. None if no slot has."""
        plan = self._table.plan()
        if plan is None:
            return None
        started_s = clock()
        launched = self._launch(audio.sanitise(plan.pcm, out=plan.pcm), plan.active)
        self._rhythm.begun(self._table.has_frames)
        return Step(plan.rows, launched, started_s)

    def wait(self, step: Step, clock: Callable[[], float]) -> None:
        """Until it is computed. Before the next one is launched."""
        step.launched.wait()
        step.seconds = clock() - step.started_s
        self._rhythm.ended(step.seconds, step.size)

    def outputs(self, step: Step) -> dict[Owner, StepDone]:
        """What a step has made, for each owner of its rows. Before a later one is waited for, and before the core takes
        another message than a frame, or wipes."""
        made = step.launched.outputs()
        voices = _voices(made)
        done: dict[Owner, StepDone] = {}
        for owner, rows in step.rows.items():
            outputs = [_output(row, made[row[0]], voices.get(row[0])) for row in rows]
            counted = 0 if done else step.size
            done[owner] = StepDone(step.seconds, self._table.take_dropped(owner), outputs, counted)
        return done

    def _launch(self, pcm: FloatArray, active: BoolArray) -> LaunchedStep:
        if self._apart is not None:
            return self._apart.launch(pcm, active)
        return _Computed(self._model.step(pcm, active))

    def _open(self, message: Open, owner: Owner) -> FromEngine:
        """One who comes back to a conversation, or brings one from elsewhere, is not asked whether its memory has
        room: it is there already, or others forget for it."""
        pages = self._pages()
        room = not self._draining and (pages is None or pages.newcomers > 0)
        lease = self._table.open(owner) if room else None
        return Opened(message.stream, *lease) if lease else Refused(message.stream)

    def _pages(self) -> PagesUse | None:
        return None if self._sharing is None else self._sharing.pages_use(self._table.used_rows)

    def _adopt(self, message: Adopt, at_s: float, owner: Owner) -> Answers:
        adopted = self._table.adopt(hashlib.sha256(message.key).digest(), owner)
        if adopted is None:
            return [(owner, NotFound(message.stream))]
        lost = Lost(adopted.slot, adopted.generation - 1)
        memo_age_s = max(0.0, at_s - adopted.locked_at_s)
        lease = message.stream, adopted.slot, adopted.generation
        return [(adopted.before, lost), (owner, Opened(*lease, adopted.heard, adopted.memo, memo_age_s))]

    def _move(self, message: Export | Fetch | Import | Put, at_s: float, owner: Owner) -> FromEngine | None:
        match message:
            case Export():
                self.wipe()  # what the slot's last reset left is no state
                return self._moves.export(message, at_s, owner)
            case Fetch():
                return self._moves.fetch(message, owner)
            case Put():
                return self._moves.put(message, owner)
            case Import():
                self.wipe()  # later it would wipe what comes
                lease = None if self._draining else self._moves.begin(message.row_format, message.heard, owner)
                return Opened(message.stream, *lease, message.heard) if lease else Refused(message.stream)

    def _greet(self, message: Hello, owner: Owner) -> FromEngine | None:
        if message.protocol != PROTOCOL:
            return OtherVersion(PROTOCOL)
        if not self._owners.greet(owner):
            logger.warning("too many media nodes: one was not let in")
            return None
        return self.ready()

    def _part(self, owner: Owner) -> None:
        """What it has locked and not closed, it leaves to another owner: for as long as one that is silent."""
        if self._table.close_all(owner, locked=False):
            self._owners.forget(owner)

    def _push(self, frame: Frame, at_s: float, owner: Owner) -> None:
        if len(frame.pcm) != _FRAME_BYTES:
            logger.warning("slot %d: a frame of %d bytes was refused", frame.slot, len(frame.pcm))
            return
        pcm = np.frombuffer(frame.pcm, dtype=PCM)
        if self._table.push(frame.slot, frame.generation, frame.seq, pcm, owner):
            self._rhythm.came(frame.slot, at_s)


def _voices(made: Sequence[RowOutput | None]) -> dict[int, bytes]:
    """What each row says that says anything, fit to be heard: of all at once, for a call costs more than its
    samples."""
    spoken = {row: output.pcm for row, output in enumerate(made) if output is not None and output.pcm is not None}
    if not spoken:
        return {}
    clean = audio.sanitise(np.stack(list(spoken.values()))).astype(PCM, copy=False)
    return {row: pcm.tobytes() for row, pcm in zip(spoken, clean, strict=True)}


def _output(row: tuple[int, int, int], made: RowOutput | None, pcm: bytes | None) -> Output:
    slot, generation, seq = row
    if made is None:
        return Output(slot, generation, seq, None, "")
    return Output(slot, generation, seq, pcm, made.text, made.pauses, made.mark)


def serve(
    load: Callable[[], StreamingModel],
    port: EnginePort,
    clocks: Clocks,
    real_time: RealTime = RealTime.UNMEASURED,
    grace_s: float = GRACE_S,
    on_warm: Callable[[], None] = lambda: None,
) -> bool:
    """One life of an engine: load a model, warm it, see whether it keeps up, step it until told to stop. False if it
    could not be loaded, or is too slow, which the other side has then been told. Anything else that the model raises
    goes through. ``on_warm``: called when there is nothing left to do but to step it."""

    stopped = False

    def rest(seconds: float) -> bool:
        nonlocal stopped
        stopped = any(isinstance(arrival.message, Stop) for arrival in port.receive(seconds))
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
        step_ms = 0.0 if pace is None else pace.longest_ms
        on_warm()
        run(EngineCore(model, step_ms / 1000, grace_s), port, clocks.now)
    return True


def run(core: EngineCore, port: EnginePort, clock: Callable[[], float]) -> None:
    """The step loop: returns when it is told to stop. Anything the model raises goes through."""
    _Loop(core, port, clock).run()


class _Loop:
    """While a device computes a step, the outputs of the one before are sent, and frames are taken. If the next step is
    not due at once, outputs are sent first; and always before anything but a frame is looked at."""

    def __init__(self, core: EngineCore, port: EnginePort, clock: Callable[[], float]) -> None:
        self._core = core
        self._port = port
        self._clock = clock
        self._unsent: Step | None = None
        self._put_off: list[Arrival] = []
        """What came during a step and was no frame, and all behind it: what the port had room for, at most."""

    def run(self) -> None:
        core, clock = self._core, self._clock
        self._port.send(core.ready())
        while True:
            self._receive()
            if core.stopped:
                self._send_outputs()
                return
            core.look(clock())
            if core.wipe_due:
                self._send_outputs()
                core.wipe()
            if core.wait_s(clock()) == 0:
                self._step()
            else:
                self._send_outputs()

    def _step(self) -> None:
        try:
            step = self._core.launch(self._clock)
        finally:  # also if it fails: those of the step before were made
            self._send_outputs()
        if step is None:
            return
        if self._core.computes_apart:
            self._receive_frames()
        self._core.wait(step, self._clock)
        self._unsent = step
        if not self._core.computes_apart or step.size < _WORTH_HOLDING:
            self._send_outputs()

    def _receive(self) -> None:
        put_off, self._put_off = self._put_off, []
        for arrival in put_off:
            self._handle(arrival)
        wait_s = 0 if put_off or self._unsent is not None else self._core.wait_s(self._clock())
        for arrival in self._port.receive(wait_s):
            self._handle(arrival)

    def _receive_frames(self) -> None:
        for arrival in self._port.receive(0):
            if self._put_off or not isinstance(arrival.message, Frame):
                self._put_off.append(arrival)
            else:
                self._handle(arrival)

    def _handle(self, arrival: Arrival) -> None:
        message, at_s, owner = arrival
        if not isinstance(message, Frame):
            self._send_outputs()
        self._send_all(self._core.handle(message, at_s, owner))

    def _send_outputs(self) -> None:
        step, self._unsent = self._unsent, None
        if step is None:
            return
        self._send_all(self._core.outputs(step).items())
        change = self._core.memory_change(self._clock())
        if change is not None:
            self._send_all([(owner, change) for owner in self._core.owners])

    def _send_all(self, answers: Iterable[tuple[Owner, FromEngine]]) -> None:
        for owner, message in answers:
            self._port.send(message, owner)
