"""What was said in a room, and what has become of it in each language that a member needed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.protocols.rooms import Kind, RoomMessage, State

UNTRANSLATABLE: Final = "untranslatable"
"""Nothing translates between the two languages."""
UNWRITTEN: Final = "unwritten"
"""The model that hears has translated it, and has not written down what was said."""
MOST_SOUND_S: Final = 60.0
"""Of one translation."""


@dataclass(slots=True)
class Rendering:
    """A message in one language; ``sound``: 16-bit samples at 24 kHz, for replay. One that is pending and has a text
    grows: the text is what is there of it."""

    state: State = "pending"
    text: str = ""
    reason: str | None = None
    sound: bytes | None = None


@dataclass(slots=True)
class Message:
    """``original`` is empty while a model is still to write it down. ``spoken_ms``: 0 of a typed one. ``ended_at``:
    when the speaker had said it."""

    id: str
    member: str
    name: str
    language: str
    voice: int
    kind: Kind
    original: str
    spoken_ms: int
    ended_at: float
    renderings: dict[str, Rendering] = field(default_factory=dict)
    only: str = ""
    """The language whose members alone see it, of what a model translates while the speaker speaks; else empty."""
    elsewhere: str = ""
    """The language whose members see, in place of it, what such a model has made of the same words; else empty."""

    def is_for(self, language: str) -> bool:
        """Whether members of that language see it."""
        return language == self.only if self.only else language != self.elsewhere

    def text_in(self, language: str) -> str:
        """What it says in ``language``; empty where that is not there, or will not be."""
        if language == self.language:
            return self.original
        rendering = self.renderings.get(language)
        return rendering.text if rendering is not None and rendering.state == "ready" else ""

    def seen_in(self, language: str, audio_url: str | None) -> RoomMessage:
        """As a member of that language gets it."""
        rendering = self.renderings.get(language)
        if language == self.language:
            rendering = Rendering("ready", self.original) if self.original else self._unwritten()
        elif rendering is None:
            rendering = Rendering("failed", reason=UNTRANSLATABLE)
        grows = rendering.state == "pending" and bool(rendering.text)
        return RoomMessage(
            self.id,
            self.member,
            self.name,
            self.language,
            self.kind,
            rendering.text if rendering.state == "ready" or grows else self.original,
            self.original,
            rendering.state,
            rendering.reason,
            audio_url,
            self.spoken_ms,
            grows,
        )

    def _unwritten(self) -> Rendering:
        """What those see of it who would read the original, while no model has written that down."""
        tried = [each for each in self.renderings.values() if each.reason != UNTRANSLATABLE]
        if not tried or any(each.state == "pending" for each in tried):
            return Rendering()
        return Rendering("failed", reason=next((each.reason for each in tried if each.reason), UNWRITTEN))


def packed(pcm: FloatArray) -> bytes:
    return audio.to_int16(pcm[: int(MOST_SOUND_S * audio.MODEL_RATE_HZ)]).tobytes()


def unpacked(sound: bytes) -> FloatArray:
    return audio.from_int16(np.frombuffer(sound, dtype=np.int16))
