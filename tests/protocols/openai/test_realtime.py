"""A model without turns, told as responses and items: golden chains of events, interruptions, bad input, and whatever
clients and models do, held against the types of OpenAI's own client."""

from __future__ import annotations

import base64
import itertools
import json
import random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent

from rtc_server.errors import EngineStalled
from rtc_server.protocols import events
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.formats import AudioFormat
from rtc_server.protocols.openai.realtime import PATIENCE_S, PAUSE_S, YIELD_S, RealtimeConversation
from rtc_server.protocols.openai.realtime_items import MAX_ITEMS, MAX_KEPT_BYTES, Items
from rtc_server.protocols.openai.realtime_settings import RealtimeSettings
from rtc_server.protocols.openai.realtime_transcripts import QUIET_S

FRAME_S = 0.08
SHAPES: dict[str, Any] = {
    name: shape
    for shape in get_args(get_args(RealtimeServerEvent)[0])
    for name in get_args(shape.model_fields["type"].annotation)
}
"""OpenAI's own types, by the event."""
AUDIO = base64.b64encode(b"\1\0" * 100).decode()
BY_EVENT = "response.output_audio.delta"


class Client:
    """A conversation, with time that the test moves, and its client's end."""

    def __init__(self, by_event: bool = True, type_: str = "realtime") -> None:
        numbers = itertools.count(1)
        settings = RealtimeSettings("sess_1", "pico", 1_800_000_000, type_)
        self.said: list[dict[str, Any]] = []
        self.heard: list[tuple[bytes, AudioFormat]] = []
        self.forgotten = {"audio": 0, "voice": 0}
        self.now = 100.0
        self.conversation = RealtimeConversation(self, settings, by_event, lambda kind: f"{kind}_{next(numbers)}")

    # The port.

    def say(self, event: str) -> None:
        parsed = json.loads(event)
        SHAPES[parsed["type"]].model_validate(parsed)
        assert parsed["event_id"]
        self.said.append(parsed)

    def take_audio(self, raw: bytes, audio_format: AudioFormat) -> None:
        self.heard.append((raw, audio_format))

    def forget_audio(self) -> None:
        self.forgotten["audio"] += 1

    def forget_voice(self) -> None:
        self.forgotten["voice"] += 1

    # What happens.

    def send(self, type_: str, **fields: Any) -> None:
        self.conversation.receive(json.dumps({"type": type_, **fields}), self.now)

    def refused(self, type_: str, **fields: Any) -> BadEvent:
        before = len(self.said)
        with pytest.raises(BadEvent) as refused:
            self.send(type_, **fields)
        assert len(self.said) == before
        return refused.value

    def tell(self, event: events.ServerEvent) -> None:
        self.conversation.on_event(event, self.now)

    def frames(self, seconds: float, raw: bytes = b"\2\0") -> None:
        for _ in range(round(seconds / FRAME_S)):
            self.now += FRAME_S
            self.conversation.on_frame(raw, self.now)

    def voice(self, active: bool) -> None:
        self.tell(events.State("speaking" if active else "listening"))

    def speaks(self, words: str, seconds: float = 0.8) -> None:
        """The model says something, and pauses no longer than within an utterance."""
        self.voice(True)
        self.tell(events.Text(words))
        self.frames(seconds)
        self.voice(False)

    # What was said.

    def types(self) -> list[str]:
        """Of all but the audio, since the last call."""
        said, self.said = self.said, []
        return [event["type"] for event in said if event["type"] != BY_EVENT]

    def last(self, type_: str) -> dict[str, Any]:
        return next(event for event in reversed(self.said) if event["type"] == type_)


OPENED = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
CLOSED = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]
WORDS = ["response.output_audio_transcript.delta"]
COMMITTED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]


def test_a_question_and_its_answer() -> None:
    """The whole chain, as it goes over the wire."""
    client = Client()
    client.tell(events.Connected("id", "dialogue", "pico", True, True))
    client.tell(events.SpeechStarted(80))
    client.frames(0.8)
    client.tell(events.SpeechEnded(880))
    client.voice(True)
    client.tell(events.Text(" that"))
    client.tell(events.Text(" is"))
    client.frames(0.16)
    client.voice(False)
    client.frames(PAUSE_S + FRAME_S)
    golden = [
        {"type": "session.created", "event_id": "event_2", "session": client.conversation.settings.as_dict()},
        {
            "type": "input_audio_buffer.speech_started",
            "event_id": "event_4",
            "item_id": "item_3",
            "audio_start_ms": 80,
        },
        {"type": "input_audio_buffer.speech_stopped", "event_id": "event_5", "item_id": "item_3", "audio_end_ms": 880},
        {"type": "input_audio_buffer.committed", "event_id": "event_6", "item_id": "item_3", "previous_item_id": None},
        {
            "type": "conversation.item.added",
            "event_id": "event_7",
            "previous_item_id": None,
            "item": {
                "id": "item_3",
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_audio", "transcript": None}],
            },
        },
    ]
    assert client.said[:5] == golden
    assert client.said[5]["type"] == "conversation.item.done"
    del client.said[:6]
    created = client.said[0]["response"]
    assert created == {
        "id": "resp_9",
        "object": "realtime.response",
        "status": "in_progress",
        "status_details": None,
        "output": [],
        "conversation_id": "conv_1",
        "output_modalities": ["audio"],
        "max_output_tokens": "inf",
        "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "default"}},
        "usage": None,
        "metadata": None,
    }
    assert client.last("response.content_part.added")["part"] == {"type": "audio", "transcript": ""}
    deltas = [event for event in client.said if event["type"] == BY_EVENT]
    assert deltas[0] | {"event_id": ""} == {
        "type": BY_EVENT,
        "event_id": "",
        "response_id": "resp_9",
        "item_id": "item_10",
        "output_index": 0,
        "content_index": 0,
        "delta": base64.b64encode(b"\2\0").decode(),
    }
    item = {
        "id": "item_10",
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_audio", "transcript": "that is"}],
    }
    done = client.last("response.done")["response"]
    assert done["output"] == [item]
    assert done["status"] == "completed"
    assert done["usage"]["output_tokens"] == len(deltas) == done["usage"]["output_token_details"]["audio_tokens"]
    assert done["usage"]["input_tokens"] == 10 + 2 + 9
    assert client.last("conversation.item.done") | {"event_id": ""} == {
        "type": "conversation.item.done",
        "event_id": "",
        "previous_item_id": "item_3",
        "item": item,
    }
    assert client.types() == [*OPENED, *WORDS, *WORDS, *CLOSED]


def test_over_webrtc_the_sound_travels_beside_the_events() -> None:
    client = Client(by_event=False)
    client.speaks("hello")
    client.frames(PAUSE_S + FRAME_S)
    started, stopped = ["output_audio_buffer.started"], ["output_audio_buffer.stopped"]
    assert client.types() == [*OPENED, *started, *WORDS, *CLOSED, *stopped]


def test_the_beginning_of_the_voice_is_not_lost() -> None:
    """A frame is louder than silence before the voice is known to be one."""
    client = Client()
    for number in range(5):
        client.frames(FRAME_S, bytes([number, 0]))
    client.voice(True)
    sound = [base64.b64decode(event["delta"])[0] for event in client.said if event["type"] == BY_EVENT]
    assert sound == [3, 4]


def test_a_pause_within_what_it_says_ends_no_response() -> None:
    client = Client()
    client.speaks("one")
    client.frames(PAUSE_S - 2 * FRAME_S)
    client.speaks(" two")
    client.frames(PAUSE_S + FRAME_S)
    assert client.types() == [*OPENED, *WORDS, *WORDS, *CLOSED]


def test_a_model_that_writes_without_a_voice() -> None:
    client = Client()
    client.tell(events.Text(" "))
    assert client.types() == [], "spaces are no words"
    client.tell(events.Text("yes"))
    client.frames(PAUSE_S + FRAME_S)
    assert client.types() == [*OPENED, *WORDS, *CLOSED]


def test_a_client_that_wants_words_alone_gets_no_sound() -> None:
    client = Client()
    client.send("session.update", session={"output_modalities": ["text"]})
    client.said.clear()
    client.speaks("hello")
    client.frames(PAUSE_S + FRAME_S)
    assert client.last("response.content_part.done")["part"] == {"type": "text", "text": "hello"}
    assert client.last("response.done")["response"]["output"][0]["content"] == [
        {"type": "output_text", "text": "hello"}
    ]
    assert BY_EVENT not in [event["type"] for event in client.said]
    text = ["response.output_text.delta", "response.output_text.done"]
    assert client.types() == [*OPENED, text[0], text[1], *CLOSED[2:]]
    assert client.conversation.silenced


# Interruption.


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


# What a client asks of responses.


def test_a_response_that_is_asked_for_is_there_at_once_and_the_next_words_are_its_own() -> None:
    client = Client()
    client.send("response.create", response={"metadata": {"client_event_id": "a"}, "instructions": "x"})
    assert client.last("response.created")["response"]["metadata"] == {"client_event_id": "a"}
    assert client.types() == ["response.created"]
    client.frames(3.0)
    client.speaks("hello")
    client.frames(PAUSE_S + FRAME_S)
    assert client.last("response.done")["response"]["metadata"] == {"client_event_id": "a"}
    assert client.types() == [*OPENED[1:], *WORDS, *CLOSED]


def test_a_model_that_says_nothing_leaves_it_empty() -> None:
    """Before LiveKit's client gives up."""
    client = Client()
    client.send("response.create")
    client.frames(PATIENCE_S - FRAME_S)
    assert client.types() == ["response.created"]
    client.frames(2 * FRAME_S)
    done = client.last("response.done")["response"]
    assert (done["status"], done["output"], done["usage"]["output_tokens"]) == ("completed", [], 0)
    assert client.types() == ["response.done"]
    assert PATIENCE_S < 10


def test_there_is_one_response_at_a_time() -> None:
    client = Client()
    client.send("response.create")
    assert client.refused("response.create", event_id="e").event_code == "conversation_already_has_active_response"
    client.speaks("hello")
    refused = client.refused("response.create", event_id="e")
    assert (refused.event_code, refused.event_id) == ("conversation_already_has_active_response", "e")
    client.frames(PAUSE_S + FRAME_S)
    client.send("response.create")


def test_a_cancelled_response_is_over_and_the_rest_of_it_is_not_heard() -> None:
    client = Client()
    client.voice(True)
    client.tell(events.Text("one"))
    client.frames(0.4)
    client.send("response.cancel")
    done = client.last("response.done")["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert client.forgotten["voice"] == 1
    assert client.conversation.silenced
    client.types()
    client.tell(events.Text(" two"))
    client.frames(0.8)
    assert client.said == []
    client.voice(False)
    assert not client.conversation.silenced
    client.speaks("three")
    client.frames(PAUSE_S + FRAME_S)
    assert client.last("response.done")["response"]["output"][0]["content"][0]["transcript"] == "three"


def test_what_is_not_there_cannot_be_cancelled() -> None:
    client = Client()
    assert client.refused("response.cancel").event_code == "response_cancel_not_active"
    client.send("response.create")
    assert client.refused("response.cancel", response_id="resp_x").event_code == "response_cancel_not_active"
    client.send("response.cancel", response_id=client.last("response.created")["response"]["id"])
    assert client.last("response.done")["response"]["status"] == "cancelled"
    assert not client.conversation.silenced, "nothing was being said"


def test_the_voice_is_cleared_until_it_falls_silent() -> None:
    client = Client(by_event=False)
    client.voice(True)
    client.frames(0.4)
    client.send("output_audio_buffer.clear")
    assert client.last("output_audio_buffer.cleared")["response_id"]
    assert client.forgotten["voice"] == 1
    assert client.conversation.silenced
    client.voice(False)
    assert not client.conversation.silenced


# What a client sends of its user.


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


# The user's words.


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


# Items.


def test_items_of_the_client_are_kept_and_given_back() -> None:
    client = Client()
    content = [{"type": "input_text", "text": "hi"}, {"type": "input_audio", "audio": "AAAA", "transcript": "x"}]
    client.send("conversation.item.create", item={"type": "message", "role": "user", "id": "mine", "content": content})
    client.send(
        "conversation.item.create", item={"type": "function_call_output", "call_id": "c", "output": "4", "id": "out"}
    )
    assert client.last("conversation.item.added")["previous_item_id"] == "mine"
    client.send("conversation.item.retrieve", item_id="mine")
    item = client.last("conversation.item.retrieved")["item"]
    assert item["content"] == [content[0], {"type": "input_audio", "transcript": "x"}], "its audio is not kept"
    client.send("conversation.item.truncate", item_id="mine", content_index=0, audio_end_ms=100)
    assert client.last("conversation.item.truncated")["audio_end_ms"] == 100
    client.send("conversation.item.delete", item_id="mine")
    added = ["conversation.item.added", "conversation.item.done"]
    told = ["retrieved", "truncated", "deleted"]
    assert client.types() == [*added, *added, *(f"conversation.item.{what}" for what in told)]
    for what, code in (("retrieve", "item_retrieve_invalid_item_id"), ("delete", "item_delete_invalid_item_id")):
        assert client.refused(f"conversation.item.{what}", item_id="mine").event_code == code
    refused = client.refused("conversation.item.truncate", item_id="mine", content_index=0, audio_end_ms=1)
    assert refused.event_code == "item_truncate_invalid_item_id"


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({}, "item.type"),
        ({"type": "poem"}, "item.type"),
        ({"type": "message"}, "item.role"),
        ({"type": "message", "role": "user"}, "item.content"),
        ({"type": "message", "role": "user", "content": ["hi"]}, "item.content"),
        ({"type": "message", "role": "user", "content": [], "id": "x" * 65}, "item.id"),
        ({"type": "message", "role": "user", "content": [], "id": 5}, "item.id"),
    ],
)
def test_items_that_are_none(item: dict[str, Any], param: str) -> None:
    assert Client().refused("conversation.item.create", item=item).param == param


def test_items_are_not_kept_for_ever() -> None:
    items = Items()
    for number in range(MAX_ITEMS + 10):
        items.put({"id": f"item_{number}"})
    assert "item_9" not in items
    assert "item_10" in items
    large = "x" * (MAX_KEPT_BYTES // 2)
    for name in ("a", "b", "c"):
        items.put({"id": name, "text": large})
    assert [name in items for name in ("item_20", "a", "b", "c")] == [False, False, False, True]
    for name in ("c", "item_x"):
        items.remove(name)
    assert items.last_id is None
    items.put({"id": "d", "text": large})
    items.put({"id": "d", "text": large})
    items.put({"id": "e", "text": "x"})
    assert "d" in items, "what was replaced takes no room"


# Settings.


def test_settings_are_taken_and_told_whole() -> None:
    client = Client()
    tools = [{"type": "function", "name": "f", "parameters": {}}]
    client.send(
        "session.update",
        session={
            "type": "realtime",
            "model": "another",
            "instructions": "Be kind.",
            "tools": tools,
            "unheard_of": 1,
            "audio": {
                "input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}, "noise_reduction": None},
                "output": {"format": {"type": "audio/pcma"}, "voice": "marin", "speed": 1.2},
            },
        },
    )
    session = client.last("session.updated")["session"]
    assert (session["model"], session["instructions"], session["tools"]) == ("pico", "Be kind.", tools)
    assert session["audio"]["output"] == {"format": {"type": "audio/pcma"}, "voice": "marin", "speed": 1.2}
    detection = session["audio"]["input"]["turn_detection"]
    assert detection == {
        "type": "semantic_vad",
        "eagerness": "low",
        "create_response": True,
        "interrupt_response": True,
    }
    assert "unheard_of" not in session
    client.send("session.update", session={"tracing": "auto"})
    assert client.last("session.updated")["session"] == session | {"tracing": "auto"}, "the rest stays"


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "x"}, "session.type"),
        ({"output_modalities": ["smell"]}, "session.output_modalities"),
        ({"audio": 5}, "session.audio"),
        ({"audio": {"input": []}}, "session.audio.input"),
        ({"audio": {"input": {"format": {"type": "audio/mp3"}}}}, "session.audio.input.format"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, "session.audio.input.format"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": "x"}}}}, "session.audio.input.format.rate"),
        ({"audio": {"output": {"format": {"rate": 1}}}}, "session.audio.output.format.type"),
        ({"audio": {"input": {"turn_detection": {"type": "x"}}}}, "session.audio.input.turn_detection.type"),
        ({"audio": {"input": {"turn_detection": 5}}}, "session.audio.input.turn_detection"),
    ],
)
def test_settings_that_cannot_be_change_nothing(session: dict[str, Any], param: str) -> None:
    client = Client()
    before = client.conversation.settings.as_dict()
    assert client.refused("session.update", session={"instructions": "x", **session}).param == param
    assert client.conversation.settings.as_dict() == before


# Bad input, and ends.


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        (b"{}", "invalid_json"),
        ("[" * 100_000, "invalid_value"),
        ("{}", "missing_required_parameter"),
        ('{"type": 5}', "invalid_value"),
        ('{"type": "response.createe"}', "unknown_event"),
        ('{"type": "session.update"}', "missing_required_parameter"),
        ('{"type": "session.update", "session": []}', "invalid_value"),
        ('{"type": "session.update", "session": {"tools": ' + "[" * 50 + "]" * 50 + "}}", "invalid_value"),
        ('{"type": "conversation.item.truncate", "item_id": "x"}', "missing_required_parameter"),
        ('{"type": "response.create", "response": {"metadata": {"a": "' + "x" * 20_000 + '"}}}', "invalid_value"),
        ('{"type": "session.update", "session": {"instructions": "' + "x" * 300_000 + '"}}', "too_large"),
    ],
    ids=[
        "empty",
        "half",
        "binary",
        "deep",
        "no type",
        "odd type",
        "unknown",
        "no session",
        "odd session",
        "deep settings",
        "half a truncation",
        "large metadata",
        "large settings",
    ],
)
def test_events_that_are_none(message: str | bytes, code: str) -> None:
    client = Client()
    with pytest.raises(BadEvent) as refused:
        client.conversation.receive(message, client.now)
    assert refused.value.event_code == code
    client.conversation.refuse(refused.value)
    assert client.types() == ["error"]


def test_the_end_of_the_engine_ends_the_response() -> None:
    client = Client()
    client.voice(True)
    client.tell(events.Error("engine_failed", "The model failed.", True))
    assert client.last("response.done")["response"]["status"] == "failed"
    assert client.last("error")["error"]["type"] == "server_error"
    assert client.types()[-1] == "error"


def test_trouble_that_the_session_survives_is_no_error() -> None:
    """Pipecat ends at any."""
    client = Client()
    stalled = EngineStalled()
    client.tell(events.Error(stalled.code, stalled.message, True))
    client.tell(events.Error("draining", "The server stops.", True))
    client.tell(events.Recovered(stalled.code))
    client.tell(events.Ending("time_limit", 1000))
    client.tell(events.Stats())
    client.tell(events.Disconnected("server_shutdown"))
    assert client.said == []


def test_the_end_of_the_time_is_told() -> None:
    client = Client()
    client.tell(events.Disconnected("time_limit"))
    assert client.last("error")["error"]["code"] == "session_expired"


# Whatever happens.


def _model(client: Client, chance: random.Random, _: bool) -> bool:
    if chance.random() < 0.5:
        client.voice(chance.random() < 0.5)
    else:
        client.tell(events.Text(chance.choice([" a", "b", " "])))
    return False


def _user(client: Client, chance: random.Random, speaking: bool) -> bool:
    """Returns whether the user has begun or ended."""
    at_ms = round(client.now * 1000)
    if chance.random() < 0.5:
        client.tell(events.Word("w", at_ms, at_ms))
        return False
    client.tell(events.SpeechEnded(at_ms) if speaking else events.SpeechStarted(at_ms))
    return True


def _asking(client: Client, chance: random.Random, _: bool) -> bool:
    transcription = {"session": {"audio": {"input": {"transcription": {"model": "x"}}}}}
    type_, fields = chance.choice(
        [
            ("response.create", {}),
            ("response.cancel", {}),
            ("input_audio_buffer.commit", {}),
            ("output_audio_buffer.clear", {}),
            ("input_audio_buffer.append", {"audio": AUDIO}),
            ("session.update", transcription),
        ]
    )
    try:
        client.send(type_, **fields)
    except BadEvent as error:
        client.conversation.refuse(error)
    return False


def _time(client: Client, chance: random.Random, _: bool) -> bool:
    client.frames(chance.choice([FRAME_S, 0.4, 1.6]))
    return False


_STEPS = (_model, _user, _asking, _time)


@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_whatever_both_sides_do_every_chain_is_in_its_order(seed: int, by_event: bool, turns: bool) -> None:
    """Responses are opened and closed once and one at a time, items too; all events are those of OpenAI's types."""
    chance = random.Random(seed)
    client = Client(by_event)
    if not turns:
        client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    speaking = False
    for _ in range(60):
        speaking = speaking is not chance.choice(_STEPS)(client, chance, speaking)
    client.voice(False)
    client.frames(PATIENCE_S + 1)
    _check_order(client.said)


def _check_order(said: list[dict[str, Any]]) -> None:
    active: str | None = None
    opened: set[str] = set()
    added: set[str] = set()
    completed: set[str] = set()
    started: str | None = None
    for event in said:
        match event["type"]:
            case "response.created":
                assert active is None, "one at a time"
                active = event["response"]["id"]
            case "response.done":
                assert event["response"]["id"] == active
                assert event["response"]["status"] != "in_progress"
                active = None
            case "response.output_item.added":
                assert event["response_id"] == active not in opened
                opened.add(event["response_id"])
            case "conversation.item.added":
                assert event["item"]["id"] not in added
                assert event["previous_item_id"] is None or event["previous_item_id"] in added
                added.add(event["item"]["id"])
            case "conversation.item.done":
                assert event["item"]["id"] in added - completed
                completed.add(event["item"]["id"])
            case "input_audio_buffer.speech_started":
                assert started is None or started in added
                started = event["item_id"]
            case "input_audio_buffer.speech_stopped":
                assert event["item_id"] == started
            case str(kind) if "input_audio_transcription" in kind:
                assert event["item_id"] in completed
            case str(kind) if kind.startswith("response."):
                assert event["response_id"] == active in opened
                assert event["item_id"] if "item_id" in event else event["item"]["id"]
    assert active is None
    assert completed == added
