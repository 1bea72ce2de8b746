"""A model that cannot keep up with speech says so in figures before anybody talks to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import pytest

from rtc_server.engine.core import serve
from rtc_server.engine.messages import FromEngine, LoadFailed, Ready, Stop, ToEngine
from rtc_server.engine.model import BoolArray, FloatArray, RowOutput
from rtc_server.engine.pace import Pace, RealTime, measure
from tests.support.fake_models import CountingModel


class Timed(CountingModel):
    """Takes as long for a step as ``cost_ms`` says, of the step's number and its active rows, on a clock of its own."""

    def __init__(self, slots: int, cost_ms: Callable[[int, int], float]) -> None:
        super().__init__(slots)
        self.now = 0.0
        self._cost_ms = cost_ms

    def step(self, pcm: FloatArray, active: BoolArray) -> Sequence[RowOutput | None]:
        self.now += self._cost_ms(len(self.steps), int(active.sum())) / 1000
        return super().step(pcm, active)


class Port:
    """Says stop at once, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[FromEngine] = []

    def receive(self, block: bool) -> Iterable[ToEngine]:
        return [Stop()]

    def send(self, message: FromEngine) -> None:
        self.told.append(message)


def started(model: Timed, real_time: RealTime) -> FromEngine:
    """What an engine with this model says first."""
    port = Port()
    loaded = serve(lambda: model, port, lambda: model.now, real_time)
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


def test_with_several_slots_fewer_may_help() -> None:
    failed = started(Timed(4, lambda _, rows: 100.0), RealTime.REQUIRED)
    assert isinstance(failed, LoadFailed)
    assert "fewer slots than 4" in (failed.hint or "")


def test_too_slow_for_one_starts_where_that_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(started(Timed(1, lambda _, rows: 100.0), RealTime.WANTED), Ready)
    (warning,) = warnings(caplog)
    assert "a step takes 100 ms, a frame is 80 ms" in warning


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
    assert measure(noisy, lambda: noisy.now) == Pace(pytest.approx(40.0), pytest.approx(40.0))
    assert isinstance(started(noisy, RealTime.REQUIRED), Ready)
    assert not warnings(caplog)


def test_nothing_of_the_measurement_is_left() -> None:
    model = Timed(3, lambda _, rows: 1.0)
    started(model, RealTime.REQUIRED)
    assert model.wipes == [[0, 1, 2]]
    assert model.counts == [0, 0, 0]


def test_what_hears_files_is_not_measured() -> None:
    model = Timed(1, lambda _, rows: 3000.0)
    assert isinstance(started(model, RealTime.UNMEASURED), Ready)
    assert not model.steps
