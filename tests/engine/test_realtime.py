"""A model that cannot keep up with speech says so in figures before a client talks to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.audio import FRAME_MS
from rtc_server.engine.core import serve
from rtc_server.engine.inbox import Arrival
from rtc_server.engine.messages import FromEngine, LoadFailed, Ready, Stop
from rtc_server.engine.model import BoolArray, FloatArray, RowOutput
from rtc_server.engine.owners import HOST, Owner
from rtc_server.engine.realtime import Clocks, Pace, RealTime, measure
from tests.support.fake_models import CountingModel


class Timed(CountingModel):
    """Takes as long for a step as ``cost_ms`` says, of the step's number and its active rows, on clocks of its own.

    ``share``: of the time in which it has a processor, for each step; the last one goes on.
    """

    def __init__(self, slots: int, cost_ms: Callable[[int, int], float], share: Sequence[float] = (1.0,)) -> None:
        super().__init__(slots)
        self.now = self.computed = 0.0
        self.warmed = 0
        self._cost_ms = cost_ms
        self._share = share

    def warm_up(self) -> None:
        super().warm_up()
        self.warmed += 1

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        computed = self._cost_ms(len(self.steps), int(active.sum())) / 1000
        self.computed += computed
        self.now += computed / self._share[min(len(self.steps), len(self._share) - 1)]
        return super().step(pcm, active)

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now, lambda: self.computed)


class Port:
    """Says stop as soon as it has no time limit, or after so many rests, and keeps what it is told."""

    def __init__(self, rests: int = 100) -> None:
        self.told: list[FromEngine] = []
        self.waited_s: list[float] = []
        self._rests = rests

    def receive(self, wait_s: float | None) -> Iterable[Arrival]:
        if wait_s is None or len(self.waited_s) >= self._rests:
            return [Arrival(Stop(), 0.0)]
        self.waited_s.append(wait_s)
        return []

    def send(self, message: FromEngine, owner: Owner = HOST) -> None:
        self.told.append(message)


def started(model: Timed, real_time: RealTime) -> FromEngine:
    """What an engine with this model says first."""
    return served(model, real_time, Port())


def served(model: Timed, real_time: RealTime, port: Port) -> FromEngine:
    loaded = serve(lambda: model, port, model.clocks, real_time)
    assert loaded is isinstance(port.told[0], Ready)
    assert model.warm
    assert model.closed
    return port.told[0]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_too_slow_for_one_is_refused_in_figures() -> None:
    failed = started(Timed(1, lambda _, rows: 3120.0), RealTime.REQUIRED)
    assert isinstance(failed, LoadFailed)
    assert failed.message == "counting cannot keep up with speech on cpu: a step takes 3,120 ms, a frame is 80 ms."
    assert failed.hint == "Use a GPU or a smaller model. --allow-slow starts it all the same."


def test_of_one_that_is_too_slow_for_one_fewer_slots_are_no_help() -> None:
    failed = started(Timed(4, lambda _, rows: 100.0), RealTime.REQUIRED)
    assert isinstance(failed, LoadFailed)
    assert failed.hint == "Use a GPU or a smaller model. --allow-slow starts it all the same."


def test_too_slow_for_one_starts_where_that_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(started(Timed(1, lambda _, rows: 100.0), RealTime.WANTED), Ready)
    (warning,) = warnings(caplog)
    assert "a step takes 100 ms, a frame is 80 ms" in warning


class Aging(Timed):
    """Each row of a step takes ``old_ms`` more when it is as old as can be."""

    oldest_frames = 3_000

    def __init__(self, slots: int, cost_ms: Callable[[int, int], float], old_ms: float) -> None:
        super().__init__(
            slots, lambda step, rows: cost_ms(step, rows) + self._frames / self.oldest_frames * old_ms * rows
        )
        self._frames = 0
        self.told: list[int] = []

    def read_at_least(self, frames: int) -> None:
        self._frames = frames
        self.told.append(frames)


def test_conversations_are_timed_as_old_as_they_can_become(caplog: pytest.LogCaptureFixture) -> None:
    """16 of them take 10 ms and 1 ms each; and when they are old, 6 ms each: 11 have time."""
    model = Aging(16, lambda _, rows: 10.0 + rows, old_ms=5.0)
    ready = started(model, RealTime.REQUIRED)
    assert isinstance(ready, Ready)
    assert ready.step_s == pytest.approx(0.106)
    (warning,) = warnings(caplog)
    assert (
        "a step takes 11 ms, with all 26 ms, when conversations are as old as the model remembers 16 and 106 ms"
        in warning
    )
    assert "there is time for 11 at a time" in warning
    assert model.told == [3_000, 0], "it is as fast as before when it is used"


def test_one_that_keeps_up_while_it_is_young_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(started(Aging(2, lambda _, rows: 40.0, old_ms=60.0), RealTime.REQUIRED), Ready)
    (warning,) = warnings(caplog)
    assert "there is time for young ones alone" in warning
    caplog.clear()
    assert isinstance(started(Aging(2, lambda _, rows: 40.0, old_ms=19.0), RealTime.REQUIRED), Ready)
    assert not warnings(caplog)


@given(slots=st.integers(1, 256), fixed=st.floats(0.1, 200), each=st.floats(0.01, 50))
def test_so_many_have_time_and_one_more_has_not(slots: int, fixed: float, each: float) -> None:
    pace = Pace(fixed, fixed, fixed, fixed + each, fixed + each * slots)
    many = pace.keep_up(slots)
    assert 0 <= many <= slots
    assert many == 0 or fixed + each * many <= FRAME_MS * 1.001
    assert many == slots or fixed + each * (many + 1) > FRAME_MS * 0.999


@pytest.mark.parametrize("real_time", [RealTime.REQUIRED, RealTime.WANTED])
def test_too_slow_for_all_at_once_is_warned_of(caplog: pytest.LogCaptureFixture, real_time: RealTime) -> None:
    assert isinstance(started(Timed(4, lambda _, rows: 30.0 * rows), real_time), Ready)
    (warning,) = warnings(caplog)
    assert "in all 4 slots at once" in warning
    assert "with one in use a step takes 30 ms, with all 120 ms" in warning


def test_one_that_keeps_up_starts_with_no_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(started(Timed(2, lambda _, rows: 79.0), RealTime.REQUIRED), Ready)
    assert not warnings(caplog)


def test_a_noisy_moment_is_not_the_model_s_fault(caplog: pytest.LogCaptureFixture) -> None:
    """Two steps in three take a second, for reasons of their own."""
    noisy = Timed(2, lambda step, rows: 1000.0 if step % 3 else 40.0)
    about: Any = pytest.approx(40.0)
    assert measure(noisy, noisy.clocks) == Pace(about, about, about)
    assert isinstance(started(noisy, RealTime.REQUIRED), Ready)
    assert not warnings(caplog)


_STEPS = 10
"""Of one measurement: five with one row, five with all."""


def test_on_a_busy_machine_it_is_timed_again() -> None:
    """A step of 20 ms that has a tenth of a processor takes 200 ms; when the others are done it keeps up."""
    port = Port()
    model = Timed(2, lambda _, rows: 20.0, [0.1] * 2 * _STEPS + [1.0])
    ready = served(model, RealTime.REQUIRED, port)
    assert isinstance(ready, Ready)
    assert ready.step_s == pytest.approx(0.02)
    assert port.waited_s == [1.0, 2.0]
    assert model.warmed == 3, "the seed means the same as if it had been timed once"


def test_a_machine_that_stays_busy_is_named_and_not_the_model() -> None:
    port = Port()
    failed = served(Timed(2, lambda _, rows: 24.1, [0.1]), RealTime.REQUIRED, port)
    assert isinstance(failed, LoadFailed)
    assert failed.message == (
        "The machine is busy: a step of counting takes 241 ms, a frame is 80 ms; "
        "it computes for 24 ms and waits for a processor for the rest."
    )
    assert "--allow-slow" in (failed.hint or "")
    assert port.waited_s == [1.0, 2.0, 4.0, 8.0]


def test_a_model_that_is_too_slow_on_a_busy_machine_too_is_refused_at_once() -> None:
    port = Port()
    failed = served(Timed(1, lambda _, rows: 100.0, [0.5]), RealTime.REQUIRED, port)
    assert isinstance(failed, LoadFailed)
    assert failed.message.startswith("counting cannot keep up with speech on cpu: a step takes 200 ms")
    assert not port.waited_s


def test_where_a_slow_model_may_start_a_busy_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    port = Port()
    assert isinstance(served(Timed(1, lambda _, rows: 20.0, [0.1]), RealTime.WANTED, port), Ready)
    (warning,) = warnings(caplog)
    assert warning.startswith("The machine is busy")
    assert not port.waited_s


def test_an_engine_that_waits_for_a_busy_machine_can_be_stopped() -> None:
    port = Port(rests=1)
    model = Timed(1, lambda _, rows: 20.0, [0.1])
    assert serve(lambda: model, port, model.clocks, RealTime.REQUIRED)
    assert not port.told
    assert model.closed


def test_nothing_of_the_measurement_is_left() -> None:
    model = Timed(3, lambda _, rows: 1.0)
    started(model, RealTime.REQUIRED)
    assert model.wipes == [[0, 1, 2]]
    assert model.counts == [0, 0, 0]


def test_who_runs_it_is_told_when_all_that_stays_is_there() -> None:
    """After the warm-up and all timing, before it is said to be ready."""
    model, port, told = Timed(2, lambda _, rows: 1.0), Port(), []
    assert serve(
        lambda: model,
        port,
        model.clocks,
        RealTime.REQUIRED,
        on_warm=lambda: told.append((model.warm, len(model.steps), len(model.wipes), len(port.told))),
    )
    assert told == [(True, _STEPS, 1, 0)]


def test_what_hears_files_is_not_measured() -> None:
    model = Timed(1, lambda _, rows: 3000.0)
    assert isinstance(started(model, RealTime.UNMEASURED), Ready)
    assert not model.steps
