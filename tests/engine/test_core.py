"""The engine's core with a model that counts: rows keep apart, and nothing harmful goes in or out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.core import EngineCore, run
from rtc_server.engine.inbox import Arrival
from rtc_server.engine.messages import (
    Close,
    Frame,
    FromEngine,
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
from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, RowOutput, ServiceKind
from rtc_server.engine.owners import HOST, Owner
from rtc_server.engine.slots import QUEUE_FRAMES
from tests.support.fake_models import MAGIC, CountingModel, FaultyModel


def pcm(value: float = 0.25) -> bytes:
    return np.full(FRAME_SAMPLES, value, np.float32).tobytes()


def samples(output: Output) -> FloatArray:
    assert output.pcm is not None
    return np.frombuffer(output.pcm, np.float32)


class Engine:
    """A core and its model, driven one message or step at a time."""

    def __init__(self, model: CountingModel) -> None:
        self.model = model
        self.core = EngineCore(model)
        self._clock = iter(range(10**6))
        self._seq = 0

    def open(self, stream: int = 1) -> tuple[int, int]:
        reply = self.tell(Open(stream))
        assert isinstance(reply, Opened)
        assert reply.stream == stream
        return reply.slot, reply.generation

    def tell(self, message: ToEngine, at_s: float = 0.0) -> FromEngine | None:
        answers = self.core.handle(message, at_s)
        assert [owner for owner, _ in answers] in ([], [HOST])
        return answers[0][1] if answers else None

    def push(self, lease: tuple[int, int], raw: bytes | None = None, at_s: float = 0.0) -> int:
        self._seq += 1
        assert self.tell(Frame(*lease, self._seq, pcm() if raw is None else raw), at_s) is None
        return self._seq

    def step(self) -> StepDone | None:
        self.core.wipe()
        done = self.core.step(lambda: next(self._clock) / 8)
        assert set(done) <= {HOST}
        return done.get(HOST)

    def outputs(self) -> list[Output]:
        done = self.step()
        return [] if done is None else done.outputs

    def texts(self) -> list[str]:
        return [output.text for output in self.outputs()]


@pytest.fixture
def engine() -> Engine:
    return Engine(CountingModel(3))


def test_it_answers_between_two_steps(engine: Engine) -> None:
    assert engine.tell(Ping()) == Pong()


def test_it_is_ready_with_what_the_model_is(engine: Engine) -> None:
    assert engine.core.ready() == Ready(ModelInfo("counting", ServiceKind.DIALOGUE, 3, "cpu", True, True))


class Growing(CountingModel):
    """Holds a byte more each time it is asked, until it is full."""

    held = 0

    def memory(self) -> MemoryUse:
        self.held = min(3, self.held + 1)
        return MemoryUse(weights_bytes=100, cache_bytes=self.held)


def test_what_the_model_holds_is_told_when_it_is_ready_and_when_it_changes() -> None:
    """Looked up every ten seconds, whatever the model does meanwhile."""
    core = EngineCore(Growing(1))
    assert core.ready().memory == MemoryUse(100, 1)
    told = [core.memory_change(now) for now in (0.0, 5.0, 9.9, 10.0, 20.0, 30.0)]
    assert told == [MemoryChanged(MemoryUse(100, 2)), None, None, MemoryChanged(MemoryUse(100, 3)), None, None]


def test_slots_are_opened_until_there_are_none(engine: Engine) -> None:
    assert len({engine.open(stream) for stream in range(3)}) == 3
    assert engine.tell(Open(77)) == Refused(77)


def test_an_output_belongs_to_its_frame(engine: Engine) -> None:
    lease = engine.open()
    seq = engine.push(lease, pcm(0.5))
    done = engine.step()
    assert done is not None
    (output,) = done.outputs
    assert (output.slot, output.generation, output.seq) == (*lease, seq)
    assert (output.text, output.pauses) == (" 1", (0.5, 0.25))
    assert samples(output)[1:].tolist() == [0.5] * (FRAME_SAMPLES - 1)
    assert (done.seconds, done.dropped) == (0.125, 0)


def test_without_a_frame_there_is_no_step(engine: Engine) -> None:
    engine.open()
    assert engine.step() is None
    assert not engine.model.steps


def test_a_row_depends_on_its_own_frames_only(engine: Engine) -> None:
    """Whatever other streams come, talk and go, each counts its own frames and hears its own audio."""
    a, b, c = (engine.open(stream) for stream in range(3))
    heard: dict[tuple[int, int], list[str]] = {a: [], b: [], c: []}
    for turn in range(12):
        for lease, every in ((a, 1), (b, 2), (c, 3)):
            if turn % every == 0:
                engine.push(lease, pcm(lease[0] / 8))
        for output in engine.outputs():
            heard[output.slot, output.generation].append(output.text)
            assert samples(output)[1] == output.slot / 8
    assert heard == {lease: [f" {n}" for n in range(1, 12 // every + 1)] for lease, every in ((a, 1), (b, 2), (c, 3))}


def test_all_rows_advance_in_one_step(engine: Engine) -> None:
    for stream in range(3):
        engine.push(engine.open(stream))
    assert engine.texts() == [" 1"] * 3
    assert engine.model.steps == [[0, 1, 2]]


def test_a_new_user_gets_a_wiped_row() -> None:
    """Wiped at the close, before another is in it, and only once."""
    engine = Engine(CountingModel(1))
    first = engine.open()
    engine.push(first)
    assert engine.texts() == [" 1"]
    engine.tell(Close(*first))
    assert engine.step() is None
    assert engine.model.wipes == [[0]]
    engine.push(engine.open())
    assert engine.texts() == [" 1"]
    assert engine.model.wipes == [[0]]


def test_a_close_and_an_open_at_once_still_wipe_in_between() -> None:
    """All in one batch of messages: the wipe comes before the step."""
    engine = Engine(CountingModel(1))
    first = engine.open()
    engine.push(first)
    engine.step()
    engine.push(first)
    engine.tell(Close(*first))
    second = engine.open()
    engine.push(second)
    (output,) = engine.outputs()
    assert (output.slot, output.generation, output.text) == (*second, " 1")


def test_a_reset_wipes_its_own_row_only(engine: Engine) -> None:
    a, b = engine.open(1), engine.open(2)
    for lease in (a, b):
        engine.push(lease)
    engine.step()
    engine.tell(Reset(*a))
    engine.push((a[0], a[1] + 1))
    engine.push(b)
    assert engine.texts() == [" 1", " 2"]
    assert engine.model.wipes == [[a[0]]]


def test_what_is_late_is_ignored(engine: Engine) -> None:
    """Frames, resets and closes of a generation that is over touch nothing."""
    old = engine.open()
    engine.tell(Reset(*old))
    lease = (old[0], old[1] + 1)
    engine.push(old)
    assert engine.core.wait_s(0.0) is None
    engine.push(lease)
    engine.tell(Reset(*old))
    engine.tell(Close(*old))
    assert engine.texts() == [" 1"]
    assert engine.model.wipes == [[old[0]]]


def test_frames_that_wait_when_a_slot_closes_are_never_played(engine: Engine) -> None:
    lease = engine.open()
    engine.push(lease)
    engine.tell(Close(*lease))
    assert engine.core.wait_s(0.0) is None
    assert engine.step() is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_the_model_hears_nothing_harmful(engine: Engine, value: float) -> None:
    """One NaN in an attention cache poisons its row for minutes."""
    bad, good = engine.open(1), engine.open(2)
    engine.push(bad, pcm(value))
    engine.push(good, pcm(0.5))
    engine.step()
    (heard,) = engine.model.heard
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 1.0
    assert (heard[good[0]] == 0.5).all()
    assert heard.dtype == np.float32


class Broken(CountingModel):
    """Says what no loudspeaker should get, in the width that it computes in."""

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        voice = np.array([np.nan, np.inf, -np.inf, 1e300] * (FRAME_SAMPLES // 4))
        return [RowOutput(pcm=voice) if on else None for on in active]  # type: ignore[arg-type]


def test_nothing_harmful_comes_out() -> None:
    engine = Engine(Broken(1))
    engine.push(engine.open())
    (output,) = engine.outputs()
    assert samples(output).size == FRAME_SAMPLES
    assert samples(output)[:4].tolist() == [0.0, 1.0, -1.0, 1.0]


class Silent(CountingModel):
    """Active rows make no audio, or nothing at all."""

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        return [RowOutput(text="é") if row == 0 and on else None for row, on in enumerate(active)]


def test_a_row_that_makes_nothing_is_answered_all_the_same() -> None:
    """Each frame has its output, so that no client waits for it."""
    engine = Engine(Silent(2))
    leases = [engine.open(stream) for stream in range(2)]
    seqs = [engine.push(lease) for lease in leases]
    assert engine.outputs() == [Output(*leases[0], seqs[0], None, "é"), Output(*leases[1], seqs[1], None, "")]


@pytest.mark.parametrize("size", [0, 1, FRAME_SAMPLES * 4 - 1, FRAME_SAMPLES * 4 + 4, FRAME_SAMPLES * 8])
def test_a_frame_of_the_wrong_length_costs_itself_only(engine: Engine, size: int) -> None:
    bad, good = engine.open(1), engine.open(2)
    engine.push(bad)
    engine.push(bad, b"\0" * size)
    engine.push(good)
    assert engine.texts() == [" 1", " 1"]
    assert engine.core.wait_s(0.0) is None


@pytest.mark.parametrize("slot", [-1, 3, 2**40])
def test_a_slot_that_does_not_exist_costs_nothing(engine: Engine, slot: int) -> None:
    engine.push((slot, 1))
    engine.tell(Reset(slot, 1))
    engine.tell(Close(slot, 1))
    assert engine.step() is None
    assert not engine.model.wipes


def test_how_long_a_frame_has_waited_counts_from_when_it_came(engine: Engine) -> None:
    """Also if a step kept the loop from reading it: then it waits for no other."""
    a, b = engine.open(1), engine.open(2)
    engine.push(b, at_s=0.0)
    engine.step()
    engine.push(a, at_s=0.075)
    assert engine.core.wait_s(0.076) > 0, "the next frame of the other is due in 4 ms"
    assert engine.core.wait_s(0.1) == 0


def test_frames_that_were_dropped_are_told_with_the_next_step(engine: Engine) -> None:
    lease = engine.open()
    for _ in range(QUEUE_FRAMES + 2):
        engine.push(lease)
    dropped = [done.dropped for done in iter(engine.step, None)]
    assert dropped == [2] + [0] * (QUEUE_FRAMES - 1)


@dataclass
class Script:
    """A transport that hands over one batch of messages a time, and keeps what is sent."""

    batches: list[list[ToEngine]]
    sent: list[FromEngine] = field(default_factory=list)
    waits: list[float | None] = field(default_factory=list)

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        self.waits.append(wait_s)
        return [Arrival(message, 0.0) for message in (self.batches.pop(0) if self.batches else [Stop()])]

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        assert owner == HOST
        self.sent.append(message)


def test_the_loop_says_ready_answers_steps_and_stops() -> None:
    model = CountingModel(1)
    port = Script([[Open(5), Open(6)], [Frame(0, 1, 1, pcm())], [Close(0, 1)]])
    run(EngineCore(model), port, lambda: 0.0)
    ready, opened, refused, done = port.sent
    assert isinstance(ready, Ready)
    assert (opened, refused) == (Opened(5, 0, 1), Refused(6))
    assert isinstance(done, StepDone)
    assert [output.text for output in done.outputs] == [" 1"]
    assert model.wipes == [[0]], "wiped at once, not when the next user comes"


def test_the_loop_waits_only_when_it_has_nothing_to_do() -> None:
    port = Script([[Open(1)], [Frame(0, 1, seq, pcm()) for seq in (1, 2, 3)], [], [], []])
    run(EngineCore(CountingModel(1)), port, lambda: 0.0)
    assert port.waits == [None, None, 0, 0, None, None]


def test_a_stop_comes_before_the_frames_that_wait() -> None:
    model = CountingModel(1)
    run(EngineCore(model), Script([[Open(1), Frame(0, 1, 1, pcm()), Stop()]]), lambda: 0.0)
    assert not model.steps


def test_what_the_model_raises_leaves_the_loop() -> None:
    """Its device cannot be trusted any more."""
    port = Script([[Open(1), Frame(0, 1, 1, pcm(MAGIC))]])
    with pytest.raises(RuntimeError, match="the device is gone"):
        run(EngineCore(FaultyModel(1)), port, lambda: 0.0)


def test_what_the_model_raises_while_wiping_leaves_the_loop() -> None:
    class Unwipeable(CountingModel):
        def reset(self, rows: BoolArray) -> None:
            raise RuntimeError("cannot wipe")

    with pytest.raises(RuntimeError, match="cannot wipe"):
        run(EngineCore(Unwipeable(1)), Script([[Open(1), Close(0, 1)]]), lambda: 0.0)
