"""A model without turns, told as responses and items: golden chains of events, interruptions, bad input, and whatever
clients and models do, held against the types of OpenAI's own client."""

from __future__ import annotations

import base64

from rtc_server.protocols import events
from rtc_server.protocols.openai.realtime import PAUSE_S
from tests.support.realtime_client import BY_EVENT, CLOSED, FRAME_S, OPENED, WORDS, Client


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
