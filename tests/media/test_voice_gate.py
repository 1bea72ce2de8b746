"""The gate on a voice opens with the first loud frame and closes after the hangover, not in a pause."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server.media.voice_gate import HANGOVER_FRAMES, VOICE_DBFS, VoiceActivity

LOUD, QUIET = VOICE_DBFS + 10, VOICE_DBFS - 10


def follow(levels: list[float]) -> list[bool]:
    """Whether the voice is audible after each frame."""
    activity = VoiceActivity()
    states = []
    for level in levels:
        before = activity.active
        changed = activity.update(level)
        assert changed is (activity.active is not before), "update tells of changes, and of nothing else"
        states.append(activity.active)
    return states


def test_silence_is_no_voice() -> None:
    assert not any(follow([-100.0] * 20))


def test_the_first_loud_frame_opens_the_gate() -> None:
    assert follow([QUIET, QUIET, LOUD]) == [False, False, True]


def test_the_gate_closes_after_the_hangover() -> None:
    quiet = HANGOVER_FRAMES
    assert follow([LOUD] + [QUIET] * (quiet + 2)) == [True] * quiet + [False] * 3


@pytest.mark.parametrize("pause", range(1, HANGOVER_FRAMES))
def test_a_pause_between_words_does_not_close_it(pause: int) -> None:
    """However many such pauses there are."""
    assert all(follow(([LOUD] + [QUIET] * pause) * 10))


def test_the_threshold_itself_is_quiet() -> None:
    assert follow([VOICE_DBFS]) == [False]
    assert follow([VOICE_DBFS + 0.01]) == [True]


@pytest.mark.parametrize("level", [float("nan"), float("-inf")])
def test_a_level_that_is_no_number_is_quiet(level: float) -> None:
    assert follow([LOUD, *[level] * HANGOVER_FRAMES])[-1] is False


@settings(deadline=None)
@given(st.lists(st.floats(-100, 0), max_size=100))
def test_audible_means_loud_within_the_hangover(levels: list[float]) -> None:
    loud = [level > VOICE_DBFS for level in levels]
    expected = [any(loud[max(0, i + 1 - HANGOVER_FRAMES) : i + 1]) for i in range(len(levels))]
    assert follow(levels) == expected
