"""The data channel's messages, to the letter of docs/protocol.md, and nothing else gets through."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server.errors import BadMessage, MessageTooLarge
from rtc_server.protocols import events
from rtc_server.protocols.events import MAX_MESSAGE_BYTES, encode_event, parse_client_message
from rtc_server.sessions.state import EndReason

PROTOCOL = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text()

GOLDEN_EVENTS: list[tuple[events.ServerEvent, str]] = [
    (
        events.Connected("0-0-abc", "dialogue", "kyutai/moshiko-pytorch-bf16", True, True),
        '{"type":"connected","session":"0-0-abc","service":"dialogue","model":"kyutai/moshiko-pytorch-bf16",'
        '"speaks":true,"writes":true,"resumed":false,"time_ms":1234}',
    ),
    (events.Starting(4200), '{"type":"starting","eta_ms":4200,"time_ms":1234}'),
    (events.Starting(None), '{"type":"starting","eta_ms":null,"time_ms":1234}'),
    (events.Text(" Grüße 👋"), '{"type":"text","delta":" Grüße 👋","time_ms":1234}'),
    (events.Text(" a", 1520), '{"type":"text","delta":" a","at_ms":1520,"time_ms":1234}'),
    (events.Captions("on"), '{"type":"captions","state":"on","time_ms":1234}'),
    (
        events.Captions("off", "server_full"),
        '{"type":"captions","state":"off","reason":"server_full","time_ms":1234}',
    ),
    (events.State("speaking"), '{"type":"state","state":"speaking","time_ms":1234}'),
    (events.State("listening", "reset"), '{"type":"state","state":"listening","reason":"reset","time_ms":1234}'),
    (events.Pong("a-1"), '{"type":"pong","id":"a-1","time_ms":1234}'),
    (events.Pong(2**53 - 1), '{"type":"pong","id":9007199254740991,"time_ms":1234}'),
    (events.Pong(), '{"type":"pong","id":null,"time_ms":1234}'),
    (
        events.Error("rate_limited", "Too many messages. Slow down.", True),
        '{"type":"error","code":"rate_limited","message":"Too many messages. Slow down.","retryable":true,'
        '"time_ms":1234}',
    ),
    (events.Recovered("engine_stalled"), '{"type":"recovered","code":"engine_stalled","time_ms":1234}'),
    (events.Word("hello", 320, 560), '{"type":"word","text":"hello","start_ms":320,"end_ms":560,"time_ms":1234}'),
    (events.SpeechStarted(80), '{"type":"speech-started","at_ms":80,"time_ms":1234}'),
    (events.SpeechEnded(160), '{"type":"speech-ended","at_ms":160,"time_ms":1234}'),
    (events.TurnEnded(240), '{"type":"turn-ended","at_ms":240,"time_ms":1234}'),
    (events.Interrupted(240), '{"type":"interrupted","at_ms":240,"time_ms":1234}'),
    (events.Ending("time_limit", 60_000), '{"type":"ending","reason":"time_limit","in_ms":60000,"time_ms":1234}'),
    (events.Moving(4200), '{"type":"moving","in_ms":4200,"time_ms":1234}'),
    (events.Disconnected("bye"), '{"type":"disconnected","reason":"bye","time_ms":1234}'),
    (
        events.Stats(),
        '{"type":"stats","packets_received":0,"packets_lost":0,"loss_in":0.0,"loss_out":0.0,"jitter_in_ms":0.0,'
        '"rtt_ms":null,"frames_in":0,"frames_out":0,"frames_filled":0,"frames_dropped":0,"engine_ms":null,'
        '"playout_ms":0.0,"underruns":0,"level_in_dbfs":-100.0,"level_out_dbfs":-100.0,'
        '"packets_late":0,"packets_duplicate":0,"packets_bad":0,"concealed_in":0.0,"jitter_buffer_ms":0.0,"time_ms":1234}',
    ),
    (
        events.Stats(500, 5, 0.25, 0.125, 3.5, 41.5, 125, 124, 2, 1, 12.25, 60.0, 3, -31.5, -20.25, 4, 6, 7, 0.5, 25.0),
        '{"type":"stats","packets_received":500,"packets_lost":5,"loss_in":0.25,"loss_out":0.125,"jitter_in_ms":3.5,'
        '"rtt_ms":41.5,"frames_in":125,"frames_out":124,"frames_filled":2,"frames_dropped":1,"engine_ms":12.25,'
        '"playout_ms":60.0,"underruns":3,"level_in_dbfs":-31.5,"level_out_dbfs":-20.25,'
        '"packets_late":4,"packets_duplicate":6,"packets_bad":7,"concealed_in":0.5,"jitter_buffer_ms":25.0,"time_ms":1234}',
    ),
]

GOLDEN_MESSAGES: list[tuple[str, events.ClientMessage]] = [
    ('{"type":"settings","muted":true}', events.Settings(muted=True)),
    ('{"type":"settings","stats_interval_ms":250}', events.Settings(stats_interval_ms=250)),
    ('{"type":"settings","stats_interval_ms":10000,"muted":false}', events.Settings(False, 10_000)),
    ('{"type":"settings","captions":false}', events.Settings(captions=False)),
    ('{"type":"settings"}', events.Settings()),
    ('{"type":"reset"}', events.Reset()),
    ('{"type":"ping"}', events.Ping()),
    ('{"type":"ping","id":"a-1"}', events.Ping("a-1")),
    ('{"type":"ping","id":0}', events.Ping(0)),
    ('{"type":"ping","id":9007199254740991}', events.Ping(2**53 - 1)),
    ('{"type":"ping","id":-9007199254740991}', events.Ping(-(2**53) + 1)),
    ('{"type":"ping","id":"' + "é" * 64 + '"}', events.Ping("é" * 64)),
    ('{"type":"ping","id":"\\u0000"}', events.Ping("\0")),
    ('{"type":"bye"}', events.Bye()),
    (' \r\n\t{ "id" : "x" , "type" : "ping" } ', events.Ping("x")),
]

BAD_MESSAGES = {
    "empty": "",
    "no json": "bye",
    "half a message": '{"type":"bye"',
    "more behind it": '{"type":"bye"} {}',
    "two messages": '{"type":"bye"}{"type":"bye"}',
    "a byte order mark": '\ufeff{"type":"bye"}',
    "a number": "1",
    "null": "null",
    "a string": '"bye"',
    "an array": '["bye"]',
    "no type": "{}",
    "a type that is null": '{"type":null}',
    "an unknown type": '{"type":"shutdown"}',
    "a server's event": '{"type":"pong","id":1}',
    "a type in capitals": '{"type":"BYE"}',
    "two types": '{"type":"ping","type":"bye"}',
    "an unknown field": '{"type":"bye","now":true}',
    "an unknown setting": '{"type":"settings","volume":1}',
    "a field of another message": '{"type":"reset","id":1}',
    "muted as a number": '{"type":"settings","muted":1}',
    "muted as text": '{"type":"settings","muted":"true"}',
    "an interval too short": '{"type":"settings","stats_interval_ms":249}',
    "an interval too long": '{"type":"settings","stats_interval_ms":10001}',
    "an interval with a fraction": '{"type":"settings","stats_interval_ms":250.5}',
    "an interval that is NaN": '{"type":"settings","stats_interval_ms":NaN}',
    "an interval that is infinite": '{"type":"settings","stats_interval_ms":Infinity}',
    "an interval that overflows": '{"type":"settings","stats_interval_ms":1e999}',
    "an id too long": '{"type":"ping","id":"' + "x" * 65 + '"}',
    "an id of 54 bits": '{"type":"ping","id":9007199254740992}',
    "an id of -54 bits": '{"type":"ping","id":-9007199254740992}',
    "an id of 64 bits": '{"type":"ping","id":18446744073709551616}',
    "an id of 3000 digits": '{"type":"ping","id":' + "9" * 3000 + "}",
    "an id with a fraction": '{"type":"ping","id":0.5}',
    "an id that is NaN": '{"type":"ping","id":NaN}',
    "an id that is true": '{"type":"ping","id":true}',
    "an id that is an array": '{"type":"ping","id":[1]}',
    "half a surrogate pair": '{"type":"ping","id":"\\ud800"}',
    "half a surrogate pair as such": '{"type":"ping","id":"\ud800"}',
    "nesting in a known field": '{"type":"ping","id":' + "[" * 2000 + "]" * 2000 + "}",
    "nesting in an unknown field": '{"x":' + "[" * 2000 + "]" * 2000 + ',"type":"bye"}',
    "nesting without an end": '{"x":' + '{"x":' * 800,
    "nesting at the top": "[" * 4096,
}


@pytest.mark.parametrize(("event", "golden"), GOLDEN_EVENTS, ids=lambda value: type(value).__name__)
def test_golden_events(event: events.ServerEvent, golden: str) -> None:
    assert encode_event(event, 1234.4) == golden


def test_an_event_that_counts_has_its_number() -> None:
    assert encode_event(events.Text("a"), 1.0, 7) == '{"type":"text","delta":"a","time_ms":1,"seq":7}'


def test_every_event_of_the_protocol_has_a_golden() -> None:
    section = PROTOCOL.split("## 2. Data channel", 1)[1].split("## 3. Data channel", 1)[0]
    rows = re.findall(r"^\| (`[\w-]+`(?:, `[\w-]+`)*) \|", section.split("`stats`:", 1)[0], re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"[\w-]+", row)}
    assert documented - {"type"} == {json.loads(golden)["type"] for _, golden in GOLDEN_EVENTS}


def test_stats_have_the_fields_of_the_protocol() -> None:
    fields = PROTOCOL.split("`stats`:", 1)[1].split("## 3.", 1)[0]
    documented = {
        name for row in re.findall(r"^\| (`[^|]+) \|", fields, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert documented == set(events.Stats.__struct_fields__)


def test_reasons_of_the_protocol_are_those_of_sessions() -> None:
    """But for ``refused``, after which there is no data channel to tell anybody on."""
    line = re.search(r"^`reason` of `disconnected`:(.*?)\n\n", PROTOCOL, re.MULTILINE | re.DOTALL)
    assert line is not None
    assert set(re.findall(r"`(\w+)`", line.group(1))) == set(EndReason) - {EndReason.REFUSED}


@pytest.mark.parametrize(("time_ms", "stamp"), [(0.0, 0), (0.4, 0), (1999.6, 2000), (86_400_000.0, 86_400_000)])
def test_events_carry_whole_milliseconds(time_ms: float, stamp: int) -> None:
    assert json.loads(encode_event(events.Text("x"), time_ms))["time_ms"] == stamp


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_figures_that_are_no_numbers_do_not_break_the_json(value: float) -> None:
    """``NaN`` and ``Infinity`` are no JSON: a browser would throw."""
    encoded = encode_event(events.Stats(loss_in=value, rtt_ms=value), 1.0)

    def refuse(constant: str) -> None:
        pytest.fail(constant)

    assert json.loads(encoded, parse_constant=refuse)["loss_in"] is None


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_words_of_a_model_arrive_as_they_are(delta: str) -> None:
    assert json.loads(encode_event(events.Text(delta), 1.0))["delta"] == delta


@pytest.mark.parametrize(("text", "message"), GOLDEN_MESSAGES, ids=lambda value: str(value)[:50])
def test_golden_messages(text: str, message: events.ClientMessage) -> None:
    parsed = parse_client_message(text)
    assert parsed == message
    assert type(parsed) is type(message)


def test_every_message_of_the_protocol_has_a_golden() -> None:
    section = PROTOCOL.split("## 3. Data channel", 1)[1].split("## 4.", 1)[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert documented - {"type"} == {json.loads(text)["type"] for text, _ in GOLDEN_MESSAGES}


@pytest.mark.parametrize("text", BAD_MESSAGES.values(), ids=list(BAD_MESSAGES))
def test_what_is_no_message_is_refused_as_such(text: str) -> None:
    """Precisely as a bad message: not as one too large, and with a sentence that quotes nothing of it."""
    with pytest.raises(BadMessage) as caught:
        parse_client_message(text)
    assert type(caught.value) is BadMessage
    assert caught.value.message in {BadMessage.message, "The message is not valid Unicode."}
    assert caught.value.__cause__ is None


def test_of_a_field_that_is_given_twice_the_last_counts() -> None:
    """As in a browser's JSON.parse; of two types no message is made."""
    assert parse_client_message('{"type":"ping","id":1,"id":2}') == events.Ping(2)
    with pytest.raises(BadMessage):
        parse_client_message('{"type":"ping","id":1,"id":[]}')


@pytest.mark.parametrize("raw", [b"", b'{"type":"bye"}', b"\xff\xfe\x00", b"x" * MAX_MESSAGE_BYTES])
def test_binary_messages_are_refused(raw: bytes) -> None:
    with pytest.raises(BadMessage, match="binary") as caught:
        parse_client_message(raw)
    assert type(caught.value) is BadMessage


def padded(size_bytes: int, filler: str) -> str:
    """A legal message of so many bytes in UTF-8, if ``filler`` divides them."""
    text = '{"type":"bye"}'
    return text + filler * ((size_bytes - len(text)) // len(filler.encode()))


def test_the_largest_message_is_taken_and_one_byte_more_is_not() -> None:
    assert parse_client_message(padded(MAX_MESSAGE_BYTES, " ")) == events.Bye()
    with pytest.raises(MessageTooLarge) as caught:
        parse_client_message(padded(MAX_MESSAGE_BYTES + 1, " "))
    assert caught.value.limit_bytes == MAX_MESSAGE_BYTES == 4096


@pytest.mark.parametrize("character", ["é", "€", "👋"])
def test_the_limit_counts_bytes_not_characters(character: str) -> None:
    """A message of few characters with many bytes is too large; at the limit it is only bad."""
    width = len(character.encode())
    too_large = character * (MAX_MESSAGE_BYTES // width + 1)
    assert len(too_large) <= MAX_MESSAGE_BYTES
    with pytest.raises(MessageTooLarge):
        parse_client_message(too_large)
    with pytest.raises(BadMessage) as caught:
        parse_client_message(character * (MAX_MESSAGE_BYTES // width))
    assert type(caught.value) is BadMessage


@pytest.mark.parametrize("message", ["x" * 100_000_000, b"x" * (MAX_MESSAGE_BYTES + 1), "\ud800" * 5000])
def test_what_is_far_too_large_is_refused_unread(message: str | bytes) -> None:
    with pytest.raises(MessageTooLarge):
        parse_client_message(message)


def assert_message_or_refusal(message: str | bytes) -> None:
    try:
        parsed = parse_client_message(message)
    except BadMessage:
        return
    assert isinstance(parsed, events.ClientMessage)
    if isinstance(parsed, events.Ping):
        json.loads(encode_event(events.Pong(parsed.id), 0.0))  # whatever was taken can be sent back


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(["type", "muted", "stats_interval_ms", "id", "x"])
TYPES = st.sampled_from(["settings", "reset", "ping", "bye", "pong"])


@settings(deadline=None)
@given(st.text(st.characters(), max_size=200) | st.binary(max_size=200))
def test_arbitrary_text_and_bytes_raise_nothing_but_bad_message(message: str | bytes) -> None:
    assert_message_or_refusal(message)


@settings(deadline=None)
@given(JSON_VALUES | st.dictionaries(FIELDS, TYPES | JSON_VALUES))
def test_arbitrary_json_raises_nothing_but_bad_message(value: object) -> None:
    assert_message_or_refusal(json.dumps(value))
    assert_message_or_refusal(json.dumps(value, ensure_ascii=False))


@settings(deadline=None)
@given(st.sampled_from([text for text, _ in GOLDEN_MESSAGES]), st.data())
def test_damaged_messages_raise_nothing_but_bad_message(text: str, data: st.DataObject) -> None:
    """One stretch of a good message replaced by anything."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    assert_message_or_refusal(text[:start] + data.draw(st.text(st.characters(), max_size=20)) + text[end:])


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=64) | st.integers(-(2**53) + 1, 2**53 - 1))
def test_every_id_within_the_limits_comes_back_as_sent(ping_id: str | int) -> None:
    ping = parse_client_message(json.dumps({"type": "ping", "id": ping_id}))
    assert isinstance(ping, events.Ping)
    assert json.loads(encode_event(events.Pong(ping.id), 0.0))["id"] == ping_id


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, events.OfferOptions(False, 1000)),
        ({"muted": True}, events.OfferOptions(True, 1000)),
        ({"stats_interval_ms": 250}, events.OfferOptions(False, 250)),
    ],
)
def test_options_of_an_offer_are_the_settings_from_the_start(
    options: dict[str, object], expected: events.OfferOptions
) -> None:
    assert msgspec.convert(options, events.OfferOptions) == expected


@pytest.mark.parametrize("options", [{"volume": 1}, {"muted": None}, {"stats_interval_ms": 249}, [], None])
def test_unknown_or_bad_options_are_an_error(options: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, events.OfferOptions)
