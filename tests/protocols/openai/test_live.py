"""OpenAI Live's events: OpenAI's own package reads those that go out, strictly; those that come are obeyed or not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.live import ServerEvent
from pydantic import TypeAdapter

from rtc_server.protocols import events
from rtc_server.protocols.openai import live
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import MAX_DEPTH
from rtc_server.protocols.openai.formats import LIVE_FORMATS, AudioFormat
from rtc_server.protocols.openai.live import BadStart, LiveSession, SessionConfig
from rtc_server.sessions.state import EndReason
from tests.protocols.openai.test_events import nested

SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(ServerEvent)
CONNECTED = events.Connected("0-0-abc", "dialogue", "pico", True, True)
MOUTHFUL = base64.b64encode(bytes(range(8))).decode()


def config(**fields: Any) -> SessionConfig:
    start = {"type": "session.start", "event_id": "s", "session": {"model": "dialogue"} | fields}
    return live.read_start(json.dumps(start))[0]


def session(**fields: Any) -> LiveSession:
    return LiveSession("live_1", 1000.4, config(**fields), "s")


def started(spoken: LiveSession) -> dict[str, Any]:
    first = read_one(spoken.tell(CONNECTED)[:1])
    assert first["type"] == "session.started"
    return first


def ask(spoken: LiveSession, type_: str, **fields: Any) -> live.Asked:
    message = json.dumps({"type": type_, "event_id": "c1"} | fields)
    return spoken.receive(message, live.head_of(message))


def refused(spoken: LiveSession, type_: str, **fields: Any) -> BadEvent:
    with pytest.raises(BadEvent) as error:
        ask(spoken, type_, **fields)
    return error.value


def read_one(texts: list[str]) -> dict[str, Any]:
    (text,) = texts
    return read(text)


def read(text: str | None) -> dict[str, Any]:
    """An event that OpenAI's package takes, to the letter."""
    assert text is not None
    event: dict[str, Any] = json.loads(text)
    SERVER_EVENT.validate_json(text, strict=True)
    return event


@pytest.mark.parametrize("form", LIVE_FORMATS)
def test_a_session_starts_as_it_was_asked_for(form: AudioFormat) -> None:
    event = read_one(session(audio={"format": form.as_dict()}).tell(CONNECTED))
    assert event.pop("event_id").startswith("event_")
    assert event == {
        "type": "session.started",
        "client_event_id": "s",
        "session": {
            "id": "live_1",
            "expires_at": 1000,
            "model": "dialogue",
            "status": "active",
            "audio": {"format": form.as_dict()},
            "delegation": {"type": "client"},
        },
    }


def test_what_clients_send_beside_is_taken() -> None:
    """As Pipecat's and LiveKit's send it: some of it is told again, and what the model cannot be told is said so."""
    spoken = session(
        instructions="Be kind.",
        input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
        audio={"output": {"voice": "marin"}},
        delegation={"type": "responses", "responses": {"model": "gpt-5", "tools": [{"type": "function", "name": "f"}]}},
        triggers=[],
        store=False,
        safety_identifier="someone",
        unheard_of=[{}],
    )
    first, info = (read(event) for event in spoken.tell(CONNECTED))
    assert first["session"]["delegation"]["responses"]["tools"] == [{"type": "function", "name": "f"}]
    assert first["session"]["audio"] == {"format": {"type": "audio/pcm", "rate": 24_000}}
    assert info["code"] == "instructions_ignored"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": None}, "invalid_value", "session.model"),
        ({"model": ""}, "invalid_value", "session.model"),
        ({"audio": {"format": {"type": "audio/opus"}}}, "invalid_value", "session.audio.format"),
        ({"audio": {"format": {"type": "audio/pcm", "rate": 48_000}}}, "invalid_value", "session.audio.format"),
        ({"audio": {"format": {"rate": 24_000}}}, "missing_required_parameter", "session.audio.format.type"),
        ({"delegation": "client"}, "invalid_value", "session.delegation"),
        ({"client": {}}, "missing_required_parameter", "session.client.data_channel"),
        (
            {"client": {"data_channel": {"allowed_server_events": "none"}}},
            "invalid_value",
            "session.client.data_channel.allowed_server_events",
        ),
        ({"delegation": {"x": nested(MAX_DEPTH + 1)}}, "invalid_value", "session.delegation"),
        ({"delegation": {"x": "x" * 70_000}}, "too_large", "session.delegation"),
        ({"triggers": [nested(MAX_DEPTH + 1)]}, "invalid_value", "session.triggers"),
    ],
)
def test_a_session_that_cannot_be(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(BadStart) as error:
        config(**fields)
    assert (error.value.event_code, error.value.param, error.value.event_id) == (code, param, "s")


def test_which_events_a_page_may_send_and_be_told() -> None:
    def allowed(**channel: Any) -> tuple[frozenset[str] | None, frozenset[str] | None]:
        made = config(client={"data_channel": channel})
        return made.client_events, made.server_events

    assert (config().client_events, config().server_events) == (None, None)
    assert allowed(allowed_client_events="all", allowed_server_events=None) == (None, None)
    assert allowed(allowed_client_events=[], allowed_server_events=[]) == (frozenset(), frozenset())
    told = [{"type": "error"}, {"type": "response.event", "response_event": "x"}]
    assert allowed(allowed_server_events=told) == (None, frozenset({"error", "response.event"}))


@pytest.mark.parametrize(("type_", "code"), [("session.close", "session_not_started"), ("hello", "unknown_event")])
def test_the_start_comes_first(type_: str, code: str) -> None:
    with pytest.raises(BadEvent) as error:
        live.read_start(json.dumps({"type": type_, "event_id": "e"}))
    assert not isinstance(error.value, BadStart)
    assert (error.value.event_code, error.value.event_id) == (code, "e")


def test_audio_is_handed_on_as_bytes() -> None:
    assert ask(session(), "session.input_audio.append", audio=MOUTHFUL).audio == bytes(range(8))


@pytest.mark.parametrize("audio", ["%", "AAA", base64.b64encode(b"odd").decode()])
def test_audio_that_is_none(audio: str) -> None:
    error = refused(session(), "session.input_audio.append", audio=audio)
    assert (error.event_code, error.param, error.event_id) == ("invalid_value", "audio", "c1")


def test_mute_and_unmute_are_acknowledged() -> None:
    spoken = session()
    for type_, muted in (("mute", True), ("unmute", False)):
        asked = ask(spoken, f"session.input_audio.{type_}")
        reply = read(asked.reply)
        assert asked.command == events.Settings(muted=muted)
        assert (reply["type"], reply["client_event_id"]) == (f"session.input_audio.{type_}d", "c1")


def test_an_update_keeps_what_it_does_not_name() -> None:
    spoken = session(delegation={"type": "responses", "responses": {"model": "gpt-5", "tools": []}})
    tools = [{"type": "function", "name": "f"}]
    update = {"delegation": {"type": "responses", "responses": {"tools": tools}}, "more": 1}
    reply = read(ask(spoken, "session.update", session=update).reply)
    assert (reply["type"], reply["client_event_id"]) == ("session.updated", "c1")
    assert reply["session"]["delegation"] == {"type": "responses", "responses": {"model": "gpt-5", "tools": tools}}
    assert read(ask(spoken, "session.update", session={"triggers": []}).reply)["session"]["triggers"] == []


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": "other"}, "immutable_parameter", "session.model"),
        ({"instructions": None}, "immutable_parameter", "session.instructions"),
        ({"audio": {}}, "immutable_parameter", "session.audio"),
        ({"delegation": {"type": "responses"}}, "immutable_parameter", "session.delegation.type"),
        ({"delegation": {"type": "client", "x": "x" * 70_000}}, "too_large", "session.delegation"),
        ({"delegation": {"type": "client", "x": nested(MAX_DEPTH + 1)}}, "invalid_value", "session.delegation"),
        ([], "invalid_value", "session"),
    ],
)
def test_an_update_that_is_refused_changes_nothing(change: Any, code: str, param: str) -> None:
    spoken = session()
    before = started(spoken)["session"]
    error = refused(spoken, "session.update", session=change)
    assert (error.event_code, error.param, error.event_id) == (code, param, "c1")
    assert started(spoken)["session"] == before


def test_what_is_kept_of_updates_does_not_grow() -> None:
    spoken = session()
    for number in range(10):
        change = {"delegation": {"type": "client", f"x{number}": "x" * 10_000}}
        if number < 6:
            ask(spoken, "session.update", session=change)
        else:
            assert refused(spoken, "session.update", session=change).event_code == "too_large"


@pytest.mark.parametrize(
    ("type_", "code"),
    [
        ("session.start", "session_already_started"),
        ("session.instructions.append", "unsupported"),
        ("session.thinking.append", "unsupported"),
        ("session.commentary.append", "unsupported"),
        ("response.create", "unsupported_event"),
        ("response.item.create", "unsupported_event"),
        ("session.output_audio.fixture.play", "unsupported_event"),
        ("input_audio_buffer.append", "unknown_event"),
    ],
)
def test_what_is_refused(type_: str, code: str) -> None:
    error = refused(session(), type_, content="x", delegation_id=None)
    assert (error.event_code, error.param, error.event_id) == (code, "type", "c1")
    event = read(live.refusal(error))
    assert event["client_event_id"] == event["error"]["client_event_id"] == "c1"


def test_where_audio_does_not_come_in_events() -> None:
    body = {"session": {"model": "dialogue"}, "transport": {"type": "webrtc", "sdp": "v=0"}}
    asked, sdp = live.read_call(json.dumps(body).encode())
    spoken = LiveSession("live_1", 0, asked)
    assert (sdp, asked.format) == ("v=0", None)
    assert started(spoken)["session"]["audio"] == {}
    assert refused(spoken, "session.input_audio.append", audio=MOUTHFUL).event_code == "unsupported_event"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"session": {"model": "m"}}, "transport"),
        ({"transport": {"type": "webrtc", "sdp": ""}}, "session"),
        ({"session": {"model": "m"}, "transport": {"type": "sip", "sdp": ""}}, "transport.type"),
        (
            {
                "session": {"model": "m", "audio": {"format": {"type": "audio/pcm"}}},
                "transport": {"type": "webrtc", "sdp": ""},
            },
            "session.audio.format",
        ),
    ],
)
def test_a_call_that_cannot_be(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadEvent) as error:
        live.read_call(json.dumps(body).encode())
    assert error.value.param == param


def test_what_happens_is_told_with_the_times_of_the_session() -> None:
    spoken = session()
    spoken.play()
    spoken.play()
    said = read_one(spoken.tell(events.Text(" that")))
    heard = read_one(spoken.tell(events.Word("hello", 320, 560)))
    assert (said["type"], said["delta"], said["start_ms"], said["end_ms"]) == (
        "session.output_transcript.delta",
        " that",
        160,
        240,
    )
    assert (heard["type"], heard["delta"], heard["start_ms"], heard["end_ms"]) == (
        "session.input_transcript.delta",
        " hello",
        320,
        560,
    )
    error = read_one(spoken.tell(events.Error("engine_stalled", "It stalls.", True)))
    assert error["error"] == {"type": "server_error", "code": "engine_stalled", "message": "It stalls."}
    assert read_one(spoken.tell(events.Recovered("engine_stalled")))["code"] == "engine_stalled_over"
    assert read_one(spoken.tell(events.Ending("time_limit", 60_000)))["code"] == "time_limit"
    for nothing in (events.State("speaking"), events.Interrupted(1), events.Pong(), events.SpeechStarted(1)):
        assert spoken.tell(nothing) == []


def test_usage_is_told_now_and_then_and_at_the_end() -> None:
    spoken = session()
    told = [event for second in range(35) for event in spoken.tell(events.Stats(frames_in=round(12.5 * second)))]
    seconds = [read(event)["usage"]["seconds"] for event in told]
    assert seconds == [10, 20, 30]
    for _ in range(448):
        spoken.play()
    assert read_one(spoken.tell(events.Disconnected("bye")))["usage"] == {"seconds": 35}


@pytest.mark.parametrize("reason", EndReason)
def test_every_end_has_a_reason_that_clients_know(reason: EndReason) -> None:
    spoken = session()
    assert ask(spoken, "session.close").closes
    closed = read_one(spoken.tell(events.Disconnected(reason)))
    expected = {"bye": "close_requested", "deleted": "close_requested", "time_limit": "expired"}
    assert closed["reason"] == expected.get(reason, "connection_lost")
    assert closed["client_event_id"] == "c1"


def test_voice_is_an_event() -> None:
    assert read(live.audio_event(b"\0\1")) == {"type": "session.output_audio.delta", "delta": "AAE="}


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(live._KNOWN)},
        optional={
            "session": st.dictionaries(
                st.sampled_from(["delegation", "triggers", "model", "audio"]),
                st.none() | st.integers() | st.just({}) | st.just([]),
            ),
            "audio": st.text(max_size=5) | st.none(),
        },
    )
)
def test_nothing_but_a_bad_event_is_raised(event: dict[str, Any]) -> None:
    message = json.dumps(event)
    for act in (live.read_start, lambda text: session().receive(text, live.head_of(text))):
        try:
            act(message)
        except BadEvent as error:
            read(live.refusal(error))
