"""OpenAI Realtime: whatever happens in whatever order, the events are in theirs."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rtc_server.protocols import events
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.realtime import PATIENCE_S
from rtc_server.protocols.openai.realtime_events import _KINDS
from tests.support.realtime_client import AUDIO, FRAME_S, Client

_NAMES = st.one_of(
    st.sampled_from(["session", "item", "audio", "response", "response_id", "item_id", "content_index", "event_id"]),
    st.sampled_from(["type", "id", "role", "content", "input", "output", "format", "rate", "turn_detection", "model"]),
    st.sampled_from(["transcription", "voice", "speed", "metadata", "output_modalities", "tools", "audio_end_ms"]),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=12,
)
"""Of JSON."""


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
    fields: dict[str, Any]
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


class Loose(Client):
    """It is told its own odd settings again, which OpenAI's types have no place for."""

    def say(self, event: str) -> None:
        self.said.append(json.loads(event))


@given(st.lists(st.tuples(st.sampled_from(list(_KINDS)), st.dictionaries(_NAMES, _VALUES, max_size=3)), max_size=8))
def test_whatever_a_client_sends_it_is_obeyed_or_refused(sent: list[tuple[str, dict[str, Any]]]) -> None:
    """Each event of its with anything in each field."""
    client = Loose()
    for type_, fields in sent:
        try:
            client.conversation.receive(json.dumps({**fields, "type": type_}), client.now)
        except BadEvent as error:
            client.conversation.refuse(error)
            assert client.said[-1]["error"]["message"].endswith(".")
    client.voice(True)
    client.frames(FRAME_S)


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
