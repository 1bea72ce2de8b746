"""OpenAI Realtime: what a client asks of responses."""

from __future__ import annotations

from rtc_server.protocols import events
from rtc_server.protocols.openai.realtime import PATIENCE_S, PAUSE_S
from tests.support.realtime_client import CLOSED, FRAME_S, OPENED, WORDS, Client


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
