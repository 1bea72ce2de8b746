"""A step waits for frames that are about to come, and no frame waits longer than a step takes."""

from __future__ import annotations

import math
import random

import pytest

from rtc_server.engine.batching import Rhythm

STEP_S = 0.02


def rhythm(slots: int = 4, step_s: float = STEP_S) -> Rhythm:
    """One that has stepped for long."""
    made = Rhythm(slots)
    for _ in range(200):
        made.begun(more_waits=False)
        made.ended(step_s, 1)
    return made


def with_frames(last_s: float, now_s: float) -> Rhythm:
    """Stream 1 had a frame at ``last_s``, which a step took; stream 0 has one at ``now_s``."""
    made = rhythm()
    made.came(1, last_s)
    made.begun(more_waits=False)
    made.ended(STEP_S, 1)
    made.came(0, now_s)
    return made


def test_a_single_stream_never_waits() -> None:
    made = rhythm()
    for number in range(5):
        made.came(0, number * 0.08)
        assert made.wait_s(number * 0.08) == 0
        made.begun(more_waits=False)
        made.ended(STEP_S, 1)


def test_a_frame_waits_for_another_that_is_due_within_a_step() -> None:
    made = with_frames(0.01, 0.08)
    assert made.wait_s(0.08) == pytest.approx(0.02), "due in 10 ms; 10 ms more before it counts as late"
    made.came(1, 0.09)
    assert made.wait_s(0.09) == 0, "both are there"


def test_it_does_not_wait_for_what_is_due_later_than_that() -> None:
    made = with_frames(0.03, 0.08)
    assert made.wait_s(0.08) == 0


def test_it_does_not_wait_for_what_is_late_or_has_left() -> None:
    made = with_frames(0.0, 0.08)
    assert 0 < made.wait_s(0.085) <= 0.005 + 1e-9
    assert made.wait_s(0.0901) == 0


def test_what_came_during_the_last_step_has_waited_by_then() -> None:
    made = with_frames(0.01, 0.06)
    assert made.wait_s(0.08) == 0


def test_a_backlog_waits_for_nobody() -> None:
    made = rhythm()
    made.came(1, 0.01)
    made.came(0, 0.0)
    made.came(0, 0.08)
    made.begun(more_waits=True)
    made.ended(STEP_S, 1)
    assert made.wait_s(0.08) == 0
    made.begun(more_waits=False)
    made.ended(STEP_S, 1)
    made.came(0, 0.085)
    assert made.wait_s(0.085) > 0


@pytest.mark.parametrize("step_s", [0.0, 0.001, 0.02, 0.5])
def test_no_frame_waits_longer_than_a_step_or_half_a_frame(step_s: float) -> None:
    made = rhythm(step_s=step_s)
    made.came(1, 0.03)
    made.begun(more_waits=False)
    made.ended(step_s, 1)
    made.came(0, 0.08)
    made.came(2, 0.081)
    waited = made.wait_s(0.081)
    assert 0.0 <= waited <= max(0.0, min(step_s, 0.04) - 0.001) + 1e-9
    assert made.wait_s(0.08 + min(step_s, 0.04)) == 0


def simulated(
    streams: int, seconds: float, seed: int, *, gathers: bool, step_s: float = STEP_S, row_s: float = 0.0
) -> tuple[int, float]:
    """Steps, and the longest time from a frame to the end of its step, of streams at random phases."""
    phases = random.Random(seed)
    sends = sorted(
        (phase + number * 0.08, stream)
        for stream, phase in enumerate(phases.uniform(0, 0.08) for _ in range(streams))
        for number in range(int(seconds / 0.08))
    )
    made, now, steps, longest, waiting = Rhythm(streams), 0.0, 0, 0.0, list[float]()
    while sends or waiting:
        while sends and sends[0][0] <= now:
            at, stream = sends.pop(0)
            made.came(stream, at)
            waiting.append(at)
        next_s = sends[0][0] if sends else math.inf
        if not waiting:
            now = next_s
        elif gathers and (wait := made.wait_s(now)) > 0:
            now = min(now + wait, next_s)
        else:
            took = step_s + len(waiting) * row_s
            now += took
            steps, longest = steps + 1, max(longest, now - min(waiting))
            made.begun(more_waits=False)
            made.ended(took, len(waiting))
            waiting = []
    return steps, longest


@pytest.mark.parametrize("seed", range(8))
def test_streams_at_random_phases_take_fewer_steps_and_wait_no_longer(seed: int) -> None:
    """Than if each step began as soon as a frame is there, where the worst that can happen is two steps."""
    eager, _ = simulated(4, 20.0, seed, gathers=False)
    steps, longest = simulated(4, 20.0, seed, gathers=True)
    assert steps <= eager
    assert longest <= 2 * STEP_S + 1e-6


def test_over_many_phases_a_third_of_the_steps_is_saved() -> None:
    eager = sum(simulated(4, 20.0, seed, gathers=False)[0] for seed in range(8))
    gathered = sum(simulated(4, 20.0, seed, gathers=True)[0] for seed in range(8))
    assert gathered < 0.7 * eager


@pytest.mark.parametrize(("fixed_s", "row_s"), [(0.005, 0.005), (0.012, 0.001), (0.02, 0.0), (0.0, 0.01)])
def test_what_is_paid_for_each_row_is_not_waited_for(fixed_s: float, row_s: float) -> None:
    """Two that share a step save what it takes beside its rows, once it is known how much of it that is."""
    made, rows = Rhythm(8), random.Random(1)
    for _ in range(400):
        made.begun(more_waits=False)
        count = rows.randint(1, 8)
        made.ended(fixed_s + count * row_s, count)
    made.came(1, 0.0)
    made.begun(more_waits=False)
    made.came(0, 0.08 - 0.002)
    made.came(2, 0.08 - 0.002)
    waits = [at for at in range(40) if made.wait_s(0.078 + at / 1000) > 0]
    until_late_s = 0.012
    assert len(waits) / 1000 == pytest.approx(min(fixed_s, until_late_s), abs=0.0031)


def test_of_steps_of_as_many_rows_each_all_of_the_time_counts() -> None:
    made = Rhythm(4)
    dice = random.Random(1)
    for _ in range(200):
        made.ended(STEP_S * dice.uniform(0.9, 1.1), 3)
    made.came(1, 0.01)
    made.begun(more_waits=False)
    made.came(0, 0.08)
    assert made.wait_s(0.08) == pytest.approx(0.02, abs=0.001)


def test_with_a_part_for_each_row_no_frame_waits_longer_than_two_steps_of_all() -> None:
    for seed in range(8):
        eager, _ = simulated(6, 20.0, seed, gathers=False, step_s=0.008, row_s=0.003)
        steps, longest = simulated(6, 20.0, seed, gathers=True, step_s=0.008, row_s=0.003)
        assert steps <= eager
        assert longest <= 2 * (0.008 + 6 * 0.003)
