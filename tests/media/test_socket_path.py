"""What a model hears of a client of a WebSocket door, in virtual time: nothing that drifts or stalls leaves a delay."""

from __future__ import annotations

import pytest

from tests.support.socket_path import Talker, talk_through

TEN_MINUTES_S = 600.0
FRAME_MS = 80.0

both_ways = pytest.mark.parametrize("paced", [False, True], ids=["as it comes", "paced"])


@both_ways
@pytest.mark.parametrize("drift_ppm", [-200, 200])
@pytest.mark.parametrize("pieces", [1, 4], ids=["20 ms", "80 ms"])
def test_ten_minutes_of_a_drifting_clock_add_no_delay(paced: bool, drift_ppm: int, pieces: int) -> None:
    heard = talk_through(Talker(drift_ppm, pieces), TEN_MINUTES_S, paced)
    assert heard.worst_delay(0, TEN_MINUTES_S) <= 2 * FRAME_MS
    assert abs(heard.delay(540, 600) - heard.delay(0, 60)) <= FRAME_MS
    assert heard.dropped_frames == 0
    assert heard.filled_frames <= 2


@both_ways
def test_a_clock_that_is_wrong_by_a_second_in_ten_minutes(paced: bool) -> None:
    """Neither the frames' lead nor what paces them keeps more than a second's pause takes away."""
    heard = talk_through(Talker(drift_ppm=1_667), TEN_MINUTES_S, paced)
    assert heard.worst_delay(0, TEN_MINUTES_S) <= 3 * FRAME_MS
    assert heard.delay(540, 600) <= 2 * FRAME_MS


@both_ways
@pytest.mark.parametrize("stall_s", [0.3, 1.0, 5.0])
def test_a_stall_leaves_no_delay_behind(paced: bool, stall_s: float) -> None:
    """A network that holds everything up and then gives it all at once: after some pauses it is as before."""
    heard = talk_through(Talker(stall=(20.0, 20.0 + stall_s)), 90, paced)
    assert heard.delay(70, 90) - heard.delay(2, 20) <= FRAME_MS
