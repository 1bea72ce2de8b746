"""OpenAI Realtime: the user speaks while the model does."""

from __future__ import annotations

from rtc_server.protocols import events
from rtc_server.protocols.openai.realtime import PAUSE_S, YIELD_S
from tests.support.realtime_client import CLOSED, COMMITTED, FRAME_S, OPENED, Client


def test_a_model_that_gives_way() -> None:
    """The client learns that the user speaks when the model has stopped, and since when."""
    client = Client()
    client.voice(True)
    client.frames(0.4)
    client.types()
    client.tell(events.SpeechStarted(1000))
    client.frames(YIELD_S + FRAME_S)
    assert client.types() == [], "it goes on speaking so far"
    client.voice(False)
    done = client.last("response.done")["response"]
    assert (done["status"], done["status_details"]) == ("cancelled", {"type": "cancelled", "reason": "turn_detected"})
    assert done["output"][0]["status"] == "incomplete"
    assert client.last("input_audio_buffer.speech_started")["audio_start_ms"] == 1000
    assert client.types() == [*CLOSED, "input_audio_buffer.speech_started"]
    client.tell(events.SpeechEnded(2000))
    assert client.types() == ["input_audio_buffer.speech_stopped", *COMMITTED]


def test_a_word_that_the_model_speaks_through_does_not_cut_it_off() -> None:
    client = Client()
    client.voice(True)
    client.frames(0.4)
    client.types()
    client.tell(events.SpeechStarted(1000))
    client.frames(0.4)
    client.tell(events.SpeechEnded(1400))
    assert client.types() == COMMITTED, "it is told, and nothing else"
    client.frames(0.4)
    client.voice(False)
    client.frames(PAUSE_S + FRAME_S)
    assert client.last("response.done")["response"]["status"] == "completed"


def test_a_pause_of_the_model_beside_a_short_word_is_no_giving_way() -> None:
    client = Client()
    client.voice(True)
    client.frames(0.4)
    client.types()
    client.tell(events.SpeechStarted(1000))
    client.voice(False)
    client.frames(YIELD_S - 2 * FRAME_S)
    client.tell(events.SpeechEnded(1300))
    client.voice(True)
    assert client.types() == COMMITTED


def test_a_user_who_begins_when_the_model_has_ended_has_the_floor_at_once() -> None:
    client = Client()
    client.speaks("yes")
    client.types()
    client.tell(events.SpeechStarted(1000))
    assert client.last("response.done")["response"]["status"] == "completed"
    assert client.types() == [*CLOSED, "input_audio_buffer.speech_started"]


def test_both_may_speak_at_once() -> None:
    """The user had begun before: each chain is in its order."""
    client = Client()
    client.tell(events.SpeechStarted(0))
    client.voice(True)
    client.frames(0.4)
    client.tell(events.SpeechEnded(400))
    assert client.types() == [
        "input_audio_buffer.speech_started",
        *OPENED,
        "input_audio_buffer.speech_stopped",
        *COMMITTED,
    ]
