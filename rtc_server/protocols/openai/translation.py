"""OpenAI's translation sessions: what their clients send, and what a session in a booth is told in their words. No IO,
no clock.

A protocol without turns: audio goes in all the time, and a translation comes out, as audio and as text. Languages are
as the client spells them; which there are is the caller's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from rtc_server.audio import FRAME_MS
from rtc_server.errors import ServerError, TranslationFailed
from rtc_server.protocols import events
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import Head, encode_event, error_event, read_event, read_head, unknown_event
from rtc_server.protocols.openai.formats import AudioFormat, decode_audio, encode_audio
from rtc_server.protocols.openai.ids import new_id
from rtc_server.protocols.room_order import InOrder
from rtc_server.protocols.rooms import Playing, RoomMessage

APPEND_AUDIO: Final = "session.input_audio_buffer.append"
FORMAT: Final = AudioFormat.PCM_24K
_KNOWN: Final = ("session.update", APPEND_AUDIO, "session.close")
_STEP_MS: Final = 200
"""In which ``elapsed_ms`` advances."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class _Transcription(msgspec.Struct):
    model: Name


class _NoiseReduction(msgspec.Struct, omit_defaults=True):
    type: Literal["near_field", "far_field"]
    strength: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class _Input(msgspec.Struct):
    transcription: _Transcription | msgspec.UnsetType | None = msgspec.UNSET
    noise_reduction: _NoiseReduction | msgspec.UnsetType | None = msgspec.UNSET


class _Output(msgspec.Struct):
    language: Annotated[str, msgspec.Meta(min_length=2, max_length=35)] | None = None


class _Audio(msgspec.Struct):
    input: _Input | None = None
    output: _Output | None = None


class Wish(msgspec.Struct):
    """How a client wants its session, or what it wants to change."""

    audio: _Audio | None = None
    model: Name | None = None
    type: Literal["translation"] | None = None

    @property
    def language(self) -> str | None:
        """Into which is to be translated, if it says so."""
        return None if self.audio is None or self.audio.output is None else self.audio.output.language


class _Update(msgspec.Struct):
    session: Wish


class _Append(msgspec.Struct):
    audio: str


_updates: Final = msgspec.json.Decoder(_Update)
_appends: Final = msgspec.json.Decoder(_Append)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client's event asks for: one of these."""

    audio: bytes = b""
    wish: Wish | None = None
    closes: bool = False


def head_of(message: str | bytes) -> Head:
    """Of any client's event. Raises BadEvent."""
    return read_head(message, (APPEND_AUDIO,))


def read_wish(session: dict[str, Any]) -> Wish:
    """The settings of a session that is asked for by HTTP. Raises BadEvent."""
    return read_event(msgspec.json.encode({"session": session}), Head("session"), _updates).session


def audio_event(raw: bytes, elapsed_ms: int) -> str:
    """The translation as sound."""
    return _event(
        "session.output_audio.delta",
        delta=encode_audio(raw),
        format="pcm16",
        sample_rate=FORMAT.rate_hz,
        channels=1,
        elapsed_ms=elapsed_ms,
    )


def refusal(error: ServerError, cause: str | None = None) -> str:
    """Any typed error as an event. ``cause``: the client's id of the event that is to blame."""
    return error_event(error, "event_id", cause)


class TranslationSession:
    """The server's side of one session. ``session_id``: as its client is told; ``expires_at``: in seconds since 1970;
    ``language``: into which is translated. ``by_event``: audio goes in events."""

    def __init__(self, session_id: str, model: str, expires_at: float, language: str | None, by_event: bool) -> None:
        self._id = session_id
        self._model = model
        self._expires_at = round(expires_at)
        self._language = language
        self._by_event = by_event
        self._input: dict[str, Any] = {"transcription": None, "noise_reduction": None}
        self._order = InOrder(0)
        self._played_ms = 0
        self._told_of: set[str] = set()
        """Messages whose original was told."""
        self._open: set[str] = set()
        """Messages that are translated or heard just now."""

    @property
    def is_quiet(self) -> bool:
        """Nothing is under way."""
        return not self._open

    @property
    def elapsed_ms(self) -> int:
        return self._played_ms // _STEP_MS * _STEP_MS

    def receive(self, message: str | bytes, head: Head) -> Asked:
        """A client's event, whose head was read. Raises BadEvent for one that is refused; the session goes on."""
        match head.type:
            case "session.input_audio_buffer.append" if self._by_event:
                return Asked(audio=decode_audio(read_event(message, head, _appends).audio, FORMAT))
            case "session.input_audio_buffer.append":
                raise BadEvent(
                    "unsupported_event", "Audio comes by WebRTC here, and in no event.", "type", head.event_id
                )
            case "session.update":
                wish = read_event(message, head, _updates).session
                if wish.model not in (None, self._model):
                    sentence = "It cannot change after the start."
                    raise BadEvent("immutable_parameter", sentence, "session.model", head.event_id)
                return Asked(wish=wish)
            case "session.close":
                return Asked(closes=True)
            case _:
                raise unknown_event(head, _KNOWN)

    def change(self, wish: Wish) -> None:
        """What it wants can be."""
        if wish.language is not None:
            self._language = wish.language
        given = None if wish.audio is None else wish.audio.input
        for name in ("transcription", "noise_reduction"):
            value = msgspec.UNSET if given is None else getattr(given, name)
            if value is not msgspec.UNSET:
                self._input[name] = msgspec.to_builtins(value)

    def updated(self) -> str:
        return _event("session.updated", session=self.as_dict())

    def play(self) -> None:
        """A frame of the translation goes out, or of silence."""
        self._played_ms += FRAME_MS

    def tell(self, event: events.ServerEvent, now: float) -> list[str]:
        """What happens in the session, in events of this protocol. ``now``: in monotonic seconds."""
        match event:
            case events.Connected():
                return [_event("session.created", session=self.as_dict())]
            case RoomMessage():
                return self._tell_message(event, now)
            case Playing(message, state):
                (self._open.add if state == "started" else self._open.discard)(f"sound {message}")
                return []
            case events.Error(code, sentence):
                return [_event("error", error={"type": "server_error", "code": code, "message": sentence})]
            case events.Disconnected():
                return [_event("session.closed")]
            case _:
                return []

    def as_dict(self) -> dict[str, Any]:
        """The session as its client is told of it."""
        return {
            "id": self._id,
            "type": "translation",
            "model": self._model,
            "expires_at": self._expires_at,
            "audio": {"input": dict(self._input), "output": {"language": self._language}},
        }

    def _tell_message(self, message: RoomMessage, now: float) -> list[str]:
        told = []
        (self._open.add if message.state == "pending" else self._open.discard)(message.id)
        if message.original and message.id not in self._told_of:
            self._told_of.add(message.id)
            if self._input["transcription"] is not None:
                told.append(self._transcript("input", message.original, message.id))
        for each in self._order.take(message, now):
            if each.state == "ready":
                told.append(self._transcript("output", each.text, each.id))
            else:
                code = each.reason or TranslationFailed.code
                error = {"type": "server_error", "code": code, "message": TranslationFailed.message}
                told.append(_event("error", error=error))
        return told

    def _transcript(self, side: str, text: str, message: str) -> str:
        delta = text if message == "1" else f" {text}"
        return _event(f"session.{side}_transcript.delta", delta=delta, elapsed_ms=self.elapsed_ms)


def _event(type_: str, **fields: Any) -> str:
    return encode_event({"type": type_, "event_id": new_id("event")} | fields)
