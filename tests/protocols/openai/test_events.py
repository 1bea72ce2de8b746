"""Events of OpenAI's clients: what is read of them, what is refused and with which words, and how errors look."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.errors import Draining, RateLimited, ServerFull, Unauthorized, UnknownService
from rtc_server.protocols.openai.errors import BadEvent, error_body
from rtc_server.protocols.openai.events import (
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    MAX_PLAIN_BYTES,
    encode_event,
    error_event,
    read_event,
    read_head,
    require_shallow,
    unknown_event,
)
from rtc_server.protocols.openai.ids import new_id


class Inner(msgspec.Struct):
    model: str


class Start(msgspec.Struct):
    session: Inner


START = msgspec.json.Decoder(Start)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"x": value}
    return value


def read(message: str | bytes) -> Start | BadEvent:
    try:
        head = read_head(message, ("audio",))
        return read_event(str(message), head, START)
    except BadEvent as error:
        return error


def refused(message: str | bytes) -> BadEvent:
    error = read(message)
    assert isinstance(error, BadEvent)
    return error


def test_an_event_is_read_by_what_its_type_has() -> None:
    message = '{"event_id":"e1","unknown":[{}],"type":"start","session":{"model":"m","more":[1,2]}}'
    head = read_head(message)
    assert (head.type, head.event_id) == ("start", "e1")
    assert read_event(message, head, START).session.model == "m"
    assert read_head('{"type":"x","event_id":null}').event_id is None


@pytest.mark.parametrize(
    ("message", "code", "param", "event_id"),
    [
        (b'{"type":"start"}', "invalid_json", None, None),
        ("", "invalid_json", None, None),
        ("{", "invalid_json", None, None),
        ('{"type":"\ud800"}', "invalid_json", None, None),
        ('{"type":"start","session":' + "[" * 100_000, "invalid_json", None, None),
        ("[]", "invalid_value", None, None),
        ('"start"', "invalid_value", None, None),
        ("{}", "missing_required_parameter", "type", None),
        ('{"type":1}', "invalid_value", "type", None),
        ('{"type":"' + "x" * 129 + '"}', "invalid_value", "type", None),
        ('{"type":"start","event_id":1}', "invalid_value", "event_id", None),
        ('{"type":"start","event_id":"' + "x" * 513 + '"}', "invalid_value", "event_id", None),
        ('{"type":"start","event_id":"e"}', "missing_required_parameter", "session", "e"),
        ('{"type":"start","event_id":"e","session":{}}', "missing_required_parameter", "session.model", "e"),
        ('{"type":"start","event_id":"e","session":{"model":null}}', "invalid_value", "session.model", "e"),
        ('{"type":"start","event_id":"e","x":"' + "x" * MAX_PLAIN_BYTES + '"}', "too_large", None, "e"),
        ('{"type":"audio","event_id":"e","x":"' + "x" * MAX_EVENT_BYTES + '"}', "too_large", None, None),
    ],
)
def test_what_is_no_event_is_refused(message: str | bytes, code: str, param: str | None, event_id: str | None) -> None:
    error = refused(message)
    assert (error.event_code, error.param, error.event_id) == (code, param, event_id)


def test_an_event_with_audio_may_be_long() -> None:
    assert read_head('{"type":"audio","x":"' + "x" * MAX_PLAIN_BYTES + '"}', ("audio",)).type == "audio"


@given(st.text(max_size=200) | st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=8)).map(json.dumps))
def test_nothing_but_a_bad_event_is_raised(message: str) -> None:
    outcome = read(message)
    assert isinstance(outcome, Start) or outcome.message.endswith(".")


@given(st.text(min_size=9, max_size=40, alphabet="abcdefghij"))
def test_a_value_is_not_repeated_to_its_client(secret: str) -> None:
    assert secret not in refused(json.dumps({"type": "start", "session": secret})).message


def test_what_is_kept_is_not_deep() -> None:
    require_shallow(nested(MAX_DEPTH - 1), "session.tools")
    with pytest.raises(BadEvent) as error:
        require_shallow(nested(MAX_DEPTH + 1), "session.tools")
    assert (error.value.event_code, error.value.param) == ("invalid_value", "session.tools")


def test_an_unknown_event_is_told_what_there_is() -> None:
    error = unknown_event(read_head('{"type":"no","event_id":"e"}'), ("b", "a"))
    assert (error.event_code, error.param, error.event_id) == ("unknown_event", "type", "e")
    assert error.message.endswith("a, b.")


def test_an_error_as_realtime_and_as_live_have_it() -> None:
    error = BadEvent("invalid_value", "No.", "audio", "e1")
    body = {"message": "No.", "type": "invalid_request_error", "code": "invalid_value", "param": "audio"}
    realtime, live = (json.loads(error_event(error, by)) for by in ("event_id", "client_event_id"))
    assert realtime["event_id"].startswith("event_")
    assert realtime | {"event_id": ""} == {"type": "error", "event_id": "", "error": body | {"event_id": "e1"}}
    assert live | {"event_id": ""} == {
        "type": "error",
        "event_id": "",
        "client_event_id": "e1",
        "error": body | {"client_event_id": "e1"},
    }
    assert json.loads(error_event(Draining(), "event_id", "e2"))["error"]["event_id"] == "e2"
    assert "client_event_id" not in error_event(Draining(), "client_event_id")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (Unauthorized(), "invalid_request_error", "invalid_api_key"),
        (UnknownService(("chat",)), "invalid_request_error", "model_not_found"),
        (RateLimited(), "rate_limit_error", "rate_limit_exceeded"),
        (ServerFull(), "server_error", "server_full"),
    ],
)
def test_errors_have_the_codes_that_clients_know(error: Any, kind: str, code: str) -> None:
    assert error_body(error) == {"message": error.message, "type": kind, "code": code, "param": None}


def test_ids_say_what_they_name_and_do_not_repeat() -> None:
    assert new_id("item").startswith("item_")
    assert len({new_id("item") for _ in range(1000)}) == 1000


def test_an_event_goes_out_as_text() -> None:
    assert encode_event({"type": "info", "message": "grüße"}) == '{"type":"info","message":"grüße"}'
