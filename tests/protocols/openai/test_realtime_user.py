"""OpenAI Realtime: what a client sends of its user, and the user's words."""

from __future__ import annotations

import pytest

from rtc_server.protocols import events
from rtc_server.protocols.openai.formats import AudioFormat
from rtc_server.protocols.openai.realtime_transcripts import QUIET_S
from tests.support.realtime_client import AUDIO, COMMITTED, FRAME_S, Client


def test_audio_goes_to_the_model_and_is_not_answered() -> None:
    client = Client()
    client.send("input_audio_buffer.append", audio=AUDIO)
    client.send("session.update", session={"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
    client.send("input_audio_buffer.append", audio="/w==")
    assert client.heard == [(b"\1\0" * 100, AudioFormat.PCM_24K), (b"\xff", AudioFormat.PCMU)]
    assert client.types() == ["session.updated"]


def test_over_webrtc_appended_audio_is_ignored() -> None:
    client = Client(by_event=False)
    client.send("input_audio_buffer.append", audio=AUDIO)
    assert client.heard == client.said == []


@pytest.mark.parametrize("audio", ["a", "!!!!", "AAA", "AAAA", "\u00e4", "A A="], ids=repr)
def test_audio_that_is_none(audio: str) -> None:
    """Not base64, or half a sample."""
    assert Client().refused("input_audio_buffer.append", audio=audio).param == "audio"


def test_with_turns_of_the_server_a_commit_is_an_item_in_any_case() -> None:
    """Pipecat takes an error for the end."""
    client = Client()
    client.send("input_audio_buffer.commit")
    assert client.types() == COMMITTED


def test_without_them_only_a_commit_makes_an_item_and_an_empty_one_does_not() -> None:
    client = Client()
    client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    client.types()
    assert client.refused("input_audio_buffer.commit").event_code == "input_audio_buffer_commit_empty"
    client.send("input_audio_buffer.append", audio=AUDIO)
    for start_ms in (0, 1000):
        client.tell(events.SpeechStarted(start_ms))
        client.tell(events.SpeechEnded(start_ms + 500))
    assert client.said == []
    client.send("input_audio_buffer.commit")
    assert client.types() == COMMITTED
    assert client.refused("input_audio_buffer.commit").event_code == "input_audio_buffer_commit_empty"
    client.send("input_audio_buffer.append", audio=AUDIO)
    client.send("input_audio_buffer.clear")
    assert client.forgotten["audio"] == 1
    assert client.types() == ["input_audio_buffer.cleared"]
    assert client.refused("input_audio_buffer.commit").event_code == "input_audio_buffer_commit_empty"


def transcribing(client: Client) -> Client:
    client.send("session.update", session={"audio": {"input": {"transcription": {"model": "x"}}}})
    client.types()
    return client


DELTA = "conversation.item.input_audio_transcription.delta"


COMPLETED = "conversation.item.input_audio_transcription.completed"


def test_words_come_behind_their_item_and_after_a_while_it_is_whole() -> None:
    client = transcribing(Client())
    client.tell(events.SpeechStarted(100))
    client.tell(events.Word("what", 40, 300))
    assert client.types() == ["input_audio_buffer.speech_started"]
    client.tell(events.SpeechEnded(1100))
    assert client.last(DELTA)["delta"] == "what"
    client.tell(events.Word("is", 400, 500))
    assert client.last(DELTA)["delta"] == " is"
    client.frames(QUIET_S + FRAME_S)
    whole = client.last(COMPLETED)
    assert (whole["transcript"], whole["usage"]) == ("what is", {"type": "duration", "seconds": 1.0})
    client.send("conversation.item.retrieve", item_id=whole["item_id"])
    retrieved = client.last("conversation.item.retrieved")["item"]
    assert retrieved["content"] == [{"type": "input_audio", "transcript": "what is"}]
    assert client.types()[-4:] == [DELTA, DELTA, COMPLETED, "conversation.item.retrieved"]


def test_late_words_belong_to_the_item_before() -> None:
    client = transcribing(Client())
    client.tell(events.SpeechStarted(0))
    client.tell(events.SpeechEnded(1000))
    client.tell(events.SpeechStarted(2000))
    client.tell(events.Word("late", 800, 1000))
    first = client.last(DELTA)["item_id"]
    client.tell(events.Word("new", 2100, 2300))
    client.tell(events.SpeechEnded(3000))
    assert client.last(DELTA)["item_id"] != first
    client.frames(QUIET_S + FRAME_S)
    whole = {event["item_id"]: event["transcript"] for event in client.said if event["type"] == COMPLETED}
    assert sorted(whole.values()) == ["late", "new"]
    assert whole[first] == "late"


def test_words_are_told_to_clients_that_ask_for_them() -> None:
    client = Client()
    client.tell(events.SpeechStarted(0))
    client.tell(events.Word("what", 0, 300))
    client.tell(events.SpeechEnded(1000))
    client.frames(QUIET_S + FRAME_S)
    assert client.types() == ["input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", *COMMITTED]


def test_an_item_without_words_has_no_transcript() -> None:
    client = transcribing(Client())
    client.tell(events.SpeechStarted(0))
    client.tell(events.SpeechEnded(1000))
    client.frames(QUIET_S + FRAME_S)
    assert COMPLETED not in client.types()


def test_words_without_speech_are_lost() -> None:
    client = transcribing(Client())
    client.tell(events.Word("what", 0, 300))
    assert client.said == []


def test_a_service_that_writes_down_what_it_hears() -> None:
    client = Client(type_="transcription")
    client.tell(events.Connected("id", "transcribe", "pico-stt", False, True))
    client.tell(events.SpeechStarted(0))
    client.tell(events.Word("hello", 0, 300))
    client.tell(events.SpeechEnded(1000))
    assert client.said[0]["session"]["type"] == "transcription"
    assert client.last(DELTA)["delta"] == "hello"
