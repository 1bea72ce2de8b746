"""A client's audio at the pace of real time: a question at once, a microphone that drifts, and too much of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.audio import MODEL_RATE_HZ, FloatArray, silence
from rtc_server.media.paced import MAX_WAITING_S, PacedAudio

TICK_S = 0.02


def tone(seconds: float) -> FloatArray:
    at = np.arange(round(seconds * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    return np.asarray(0.3 * np.sin(2 * np.pi * 440 * at), dtype=np.float32)


def seconds(pieces: list[FloatArray]) -> float:
    return sum(piece.size for piece in pieces) / MODEL_RATE_HZ


def played_out(paced: PacedAudio, now: float) -> tuple[list[FloatArray], float]:
    """All that waits, at its pace, and when it has gone."""
    pieces: list[FloatArray] = []
    while paced.waiting_s:
        now += TICK_S
        pieces += paced.poll(now)
    return pieces, now


def test_a_microphone_goes_through_at_once() -> None:
    paced, now = PacedAudio(0.0), 0.0
    for _ in range(500):
        now += 0.02
        assert seconds(paced.push(tone(0.02), now)) == pytest.approx(0.02)
    assert paced.waiting_s == paced.dropped_s == 0


def test_a_question_that_comes_at_once_is_heard_as_it_was_said() -> None:
    paced = PacedAudio(0.0)
    question = tone(3.0)
    first = paced.push(question, 0.0)
    assert seconds(first) <= 0.13
    rest, ended = played_out(paced, 0.0)
    assert ended == pytest.approx(3.0, abs=0.15), "no faster than it lasts"
    np.testing.assert_array_equal(np.concatenate(first + rest), question)
    assert paced.dropped_s == 0


def test_of_too_much_the_oldest_is_dropped_and_counted() -> None:
    paced = PacedAudio(0.0)
    for number in range(10):
        paced.push(np.full(5 * MODEL_RATE_HZ, 0.1 + number / 100, np.float32), 0.0)
        assert paced.waiting_s <= MAX_WAITING_S
    pieces, _ = played_out(paced, 0.0)
    assert pieces[-1][-1] == np.float32(0.19)
    assert pieces[0][0] == np.float32(0.14), "the oldest that is left"
    assert paced.dropped_s == pytest.approx(50 - MAX_WAITING_S, abs=0.2)


def test_ten_minutes_of_a_fast_clock_leave_no_growing_delay() -> None:
    """Two in a thousand too fast, with pauses as people make them; and a network that holds up two seconds at once."""
    paced, now = PacedAudio(0.0), 0.0
    speech, pause = tone(0.02), silence(480)
    longest = 0.0
    held: list[FloatArray] = []
    for number in range(30_000):
        now += 0.02 / 1.002
        held.append(speech if number % 250 < 200 else pause)
        if number % 5000 >= 100:  # else the network holds it up
            paced.push(np.concatenate(held), now)
            held = []
        if number > 5000 and number % 5000 > 2000:
            longest = max(longest, paced.waiting_s)
        paced.poll(now)
    assert longest < 0.5
    assert 0 < paced.dropped_s < 15


def test_pauses_are_left_as_they_are_while_nothing_waits() -> None:
    paced, now = PacedAudio(0.0), 0.0
    for _ in range(500):
        now += 0.02
        paced.push(silence(480), now)
    assert paced.dropped_s == 0


def test_what_waits_can_be_forgotten() -> None:
    paced = PacedAudio(0.0)
    paced.push(tone(3.01), 0.0)
    paced.clear()
    assert paced.poll(10.0) == []
    assert seconds(paced.push(tone(0.02), 20.0)) == pytest.approx(0.02)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 5 * MODEL_RATE_HZ)), max_size=30))
def test_however_it_comes_it_goes_on_no_faster_than_real_time(steps: list[tuple[float, int]]) -> None:
    paced, now, given_s, taken_s = PacedAudio(0.0), 0.0, 0.0, 0.0
    for wait_s, samples in steps:
        now += wait_s
        given_s += samples / MODEL_RATE_HZ
        taken_s += seconds(paced.push(silence(samples), now))
        assert taken_s <= now + 0.13
        assert paced.waiting_s <= MAX_WAITING_S
    assert taken_s + paced.waiting_s + paced.dropped_s == pytest.approx(given_s, abs=0.021)
