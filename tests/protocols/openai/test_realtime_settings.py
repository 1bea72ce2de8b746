"""OpenAI Realtime: a session's settings, and what is refused in them."""

from __future__ import annotations

from typing import Any

import pytest

from rtc_server.errors import EngineStalled
from rtc_server.protocols import events
from rtc_server.protocols.openai.errors import BadEvent
from tests.support.realtime_client import Client


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
        ({"audio": {"input": {"turn_detection": {"type": []}}}}, "session.audio.input.turn_detection.type"),
        ({"audio": {"input": {"turn_detection": 5}}}, "session.audio.input.turn_detection"),
    ],
)
def test_settings_that_cannot_be_change_nothing(session: dict[str, Any], param: str) -> None:
    client = Client()
    before = client.conversation.settings.as_dict()
    assert client.refused("session.update", session={"instructions": "x", **session}).param == param
    assert client.conversation.settings.as_dict() == before


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
        ('{"type": "response.create", "response": {"metadata": {"a": ' + "[" * 50 + "]" * 50 + "}}}", "invalid_value"),
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
        "deep metadata",
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


def test_the_end_of_the_engine_ends_the_response_and_not_yet_the_session() -> None:
    """Another model may go on: it speaks in a response of its own. If none does, that is an error."""
    client = Client()
    client.voice(True)
    client.tell(events.Error("engine_failed", "The model failed.", True))
    assert client.last("response.done")["response"]["status"] == "failed"
    client.tell(events.Recovered("engine_failed"))
    client.tell(events.State("listening", "restarted"))
    assert "error" not in client.types()
    client.voice(True)
    assert "response.created" in client.types()
    client.tell(events.Error("engine_failed", "The model failed.", True))
    client.tell(events.Disconnected("engine_failed"))
    assert client.last("error")["error"] == client.last("error")["error"] | {
        "type": "server_error",
        "code": "engine_failed",
    }
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
