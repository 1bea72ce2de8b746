from __future__ import annotations

from rtc_server.sessions.state import SessionEvent
from rtc_server.sessions.voice import ModelVoice

LOUD, QUIET = -20.0, -90.0


def ends_at(voice: ModelVoice, now: float) -> tuple[float, float | None]:
    """When the voice has stopped, hearing quiet frames from ``now`` on; and how long after an interruption."""
    for _ in range(100):
        event, quiet_s = voice.follow(QUIET, now)
        if event is SessionEvent.VOICE_STOPPED:
            return now, quiet_s
        now += 0.08
    raise AssertionError("it never stops")


def test_it_begins_and_falls_silent_once() -> None:
    voice = ModelVoice()
    assert voice.follow(QUIET, 0.0) == (None, None)
    assert voice.follow(LOUD, 0.08) == (SessionEvent.VOICE_STARTED, None)
    assert voice.follow(LOUD, 0.16) == (None, None)
    assert ends_at(voice, 0.24)[1] is None
    assert voice.follow(QUIET, 99.0) == (None, None)


def test_an_interruption_is_measured_to_the_silence_it_causes_and_once() -> None:
    voice = ModelVoice()
    voice.follow(LOUD, 0.0)
    voice.interrupt(0.5)
    stopped_at, quiet_s = ends_at(voice, 0.6)
    assert quiet_s == stopped_at - 0.5
    voice.follow(LOUD, 10.0)
    assert ends_at(voice, 10.1)[1] is None


def test_a_voice_that_is_cleared_begins_again() -> None:
    voice = ModelVoice()
    voice.follow(LOUD, 0.0)
    voice.clear()
    assert voice.follow(LOUD, 0.08) == (SessionEvent.VOICE_STARTED, None)
