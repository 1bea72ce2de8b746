"""What another conversation would cost is read off steps of different sizes, and a hold-up is not its cost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.engine.step_times import StepTimes


def times(*steps: tuple[float, int]) -> StepTimes:
    made = StepTimes()
    for seconds, rows in steps:
        made.add(seconds, rows)
    return made


@given(
    fixed=st.floats(0.0, 0.1),
    of_a_row=st.floats(0.0, 0.02),
    rows=st.lists(st.integers(1, 64), min_size=32, max_size=64).filter(lambda rows: len(set(rows)) > 4),
    wanted=st.integers(1, 128),
)
def test_a_step_costs_a_part_of_its_own_and_one_for_each_row(
    fixed: float, of_a_row: float, rows: list[int], wanted: int
) -> None:
    found = times(*((fixed + of_a_row * each, each) for each in rows))
    expected, median = found.expected(wanted), found.p50
    assert expected is not None
    assert median is not None
    assert expected == pytest.approx(max(median, fixed + of_a_row * wanted), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_steps_that_were_held_up_do_not_matter(seed: int) -> None:
    """One in eight takes half a second more; the others are 10 ms and 1 ms a row, give or take a tenth."""
    dice = random.Random(seed)
    made = StepTimes()
    for number in range(64):
        rows = dice.randint(2, 12)
        made.add((0.01 + 0.001 * rows) * dice.uniform(0.9, 1.1) + 0.5 * (number % 8 == 0), rows)
    assert made.expected(20) == pytest.approx(0.03, abs=0.006)


def test_of_steps_of_ever_as_many_rows_it_is_the_median() -> None:
    assert times(*[(0.03, 5)] * 64).expected(20) == 0.03
    assert times(*[(0.03, 0)] * 64).expected(20) == 0.03, "not known"
    assert times(*[(0.03, 5)] * 63, (0.9, 6)).expected(20) == pytest.approx(0.03 + 15 * 0.87), "one is none too few"


def test_too_few_say_nothing_and_what_is_over_counts_no_more() -> None:
    made = times(*[(0.05, 1)] * 31)
    assert (made.p50, made.p95, made.expected(3)) == (None, None, None)
    made.add(9.0, 1)
    assert made.p50 == 0.05
    for _ in range(64):
        made.add(0.07, 1)
    assert made.seconds == [0.07] * 64
    made.clear()
    assert made.expected(1) is None


def test_larger_steps_that_are_quicker_make_no_one_welcome() -> None:
    """What a row costs is nothing then, and not less."""
    made = times(*((0.09 - 0.01 * (number % 4), 1 + number % 4) for number in range(64)))
    assert made.expected(8) == made.p50
