"""When a loop is too late for more calls, on a clock of the test's own."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from rtc_server.errors import Overloaded
from rtc_server.metrics import Metrics
from rtc_server.system.loop_lag import TICK_S, WINDOW_S, LagWindow, LoopLag

LATE_S = 0.02


class Loop:
    """Ticks that come as late as the test says, one after the other as the real ones do."""

    def __init__(self) -> None:
        self.window = LagWindow(LATE_S)
        self.now = 0.0

    def run(self, seconds: float, late_s: Callable[[], float]) -> None:
        end = self.now + seconds
        while self.now < end:
            late = late_s()
            self.now += TICK_S + late
            self.window.add(self.now, late)


@pytest.fixture
def loop() -> Loop:
    made = Loop()
    made.run(2 * WINDOW_S, lambda: 0.001)
    assert not made.window.crowded
    return made


def now_and_then(share: float, late_s: float, seed: int = 1) -> Callable[[], float]:
    dice = random.Random(seed)
    return lambda: late_s if dice.random() < share else 0.001


@pytest.mark.parametrize("hold_up_s", [0.05, 1.0, 60.0])
def test_one_hold_up_is_no_crowd(loop: Loop, hold_up_s: float) -> None:
    """However long it is: a collection of garbage, a suspended machine."""
    loop.run(0.1, lambda: 0.001)
    loop.run(0.001, lambda: hold_up_s)
    assert not loop.window.crowded
    loop.run(WINDOW_S, lambda: 0.001)
    assert not loop.window.crowded


@pytest.mark.parametrize("seed", range(5))
def test_few_late_ticks_are_no_crowd(loop: Loop, seed: int) -> None:
    """Two in a hundred, for a minute."""
    loop.run(60.0, now_and_then(0.01, 0.05, seed))
    assert not loop.window.crowded


@pytest.mark.parametrize("late_s", [0.03, 0.1, 0.5])
def test_a_loop_that_is_late_again_and_again_is_crowded(loop: Loop, late_s: float) -> None:
    """One tick in six, as where a container is kept from its processor for a part of each period: within seconds."""
    loop.run(2 * WINDOW_S, now_and_then(1 / 6, late_s))
    assert loop.window.crowded


def test_it_stays_crowded_until_it_has_been_calm_for_a_while(loop: Loop) -> None:
    loop.run(WINDOW_S, now_and_then(0.5, 0.05))
    assert loop.window.crowded
    loop.run(WINDOW_S, now_and_then(0.03, 0.05))
    assert loop.window.crowded, "with three in a hundred it would not have become so"
    loop.run(WINDOW_S / 2, lambda: 0.001)
    loop.run(2 * WINDOW_S, lambda: 0.001)
    assert not loop.window.crowded


def test_a_process_that_starts_may_be_late() -> None:
    """It loads, and has nothing else to do."""
    loop = Loop()
    loop.run(WINDOW_S * 0.9, lambda: 0.1)
    assert not loop.window.crowded


def test_the_figures_are_of_the_last_seconds(loop: Loop) -> None:
    assert loop.window.quantile(0.95) == pytest.approx(0.001)
    loop.run(2 * WINDOW_S, now_and_then(0.2, 0.3))
    assert loop.window.quantile(0.5) == pytest.approx(0.001)
    assert loop.window.quantile(0.95) == pytest.approx(0.3)
    assert LagWindow(LATE_S).quantile(0.5) == 0.0


def test_the_share_of_late_ticks_is_known_once_the_window_is_full() -> None:
    loop = Loop()
    loop.run(WINDOW_S * 0.9, lambda: 0.1)
    assert loop.window.late_share == 0.0
    loop.run(2 * WINDOW_S, lambda: 0.1)
    assert loop.window.late_share == 1.0
    loop.run(2 * WINDOW_S, lambda: 0.001)
    assert loop.window.late_share == 0.0


def test_the_door_and_the_metrics_go_by_it() -> None:
    metrics = Metrics()
    lag = LoopLag(20.0, metrics)
    lag.require_room()
    now = 0.0
    while now < 2 * WINDOW_S:
        now += TICK_S + 0.05
        lag.window.add(now, 0.05)
    with pytest.raises(Overloaded) as refused:
        lag.require_room()
    assert refused.value.retry_after_s
    sample = metrics.registry.get_sample_value("rtc_loop_lag_seconds", {"quantile": "0.95"})
    assert sample == pytest.approx(0.05)
