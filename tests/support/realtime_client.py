"""A client of OpenAI Realtime in virtual time, and what it is told."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any, get_args

import pytest
from openai.types.realtime import RealtimeServerEvent

from rtc_server.protocols import events
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.formats import AudioFormat
from rtc_server.protocols.openai.realtime import RealtimeConversation
from rtc_server.protocols.openai.realtime_settings import RealtimeSettings

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
