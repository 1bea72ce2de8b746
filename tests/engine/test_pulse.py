"""When an engine's silence is no longer usual, on a clock of the test's own."""

from __future__ import annotations

import pytest

from rtc_server.engine.pulse import AGAIN_S, QUIET_S, Pulse, quiet_s


def silence(pulse: Pulse, seconds: float, start: float = 0.0) -> float:
    """What it says after so long without an answer, watched as often as it should be."""
    looks = round(seconds / pulse.every_s)
    silent_s = 0.0
    for number in range(looks + 1):
        silent_s = pulse.look(start + number * pulse.every_s)
        pulse.ask()
    return silent_s


def test_silence_grows_as_long_as_a_question_waits() -> None:
    pulse = Pulse(0.25)
    assert silence(pulse, 3.0) == pytest.approx(3.0)
    pulse.answered()
    assert pulse.look(3.1) == 0.0


def test_one_question_waits_at_a_time() -> None:
    pulse = Pulse(0.25)
    assert pulse.ask()
    assert not pulse.ask()
    pulse.answered()
    assert pulse.ask()


def test_a_question_that_is_not_answered_is_asked_again_each_second() -> None:
    """It may have been lost; an engine that hangs is not flooded."""
    pulse = Pulse(0.25)
    asked = []
    for number in range(15):
        pulse.look(number * 0.25)
        if pulse.ask():
            asked.append(number * 0.25)
    assert asked == [0.0, AGAIN_S, 2 * AGAIN_S, 3 * AGAIN_S]
    pulse.answered()
    assert pulse.ask()
    assert not pulse.ask()


def test_an_engine_that_was_not_asked_is_not_silent() -> None:
    pulse = Pulse(0.25)
    assert [pulse.look(at) for at in (0.0, 10.0, 20.0)] == [0.0, 0.0, 0.0]


def test_what_was_not_watched_does_not_count() -> None:
    """This process stood still for a minute: the engine may have answered long ago."""
    pulse = Pulse(0.25)
    silence(pulse, 1.0)
    assert pulse.look(61.0) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("steps_s", "expected_s"),
    [([], QUIET_S), ([0.02] * 60, QUIET_S), ([0.02, 0.45], QUIET_S), ([0.02, 3.0, 0.02], 12.0)],
    ids=["unknown", "fast", "one slow step", "very slow steps"],
)
def test_an_engine_with_long_steps_may_be_silent_for_longer(steps_s: list[float], expected_s: float) -> None:
    assert quiet_s(steps_s) == expected_s
