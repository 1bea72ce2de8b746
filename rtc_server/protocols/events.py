"""The data channel's messages: ``docs/protocol.md``, sections 2 and 3.

Turns text into typed client messages and server events into text. Knows nothing of channels, sessions or
clocks: the time of an event is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from rtc_server.errors import BadMessage, MessageTooLarge
from rtc_server.protocols.rooms import RoomCommand, RoomEvent

MAX_MESSAGE_BYTES: Final = 4096
CHANNEL_LABEL: Final = "text"

StatsInterval = Annotated[int, msgspec.Meta(ge=250, le=10_000)]
PingId = Annotated[str, msgspec.Meta(max_length=64)] | Annotated[int, msgspec.Meta(ge=-(2**53) + 1, le=2**53 - 1)]


class Settings(msgspec.Struct, frozen=True, tag="settings", forbid_unknown_fields=True):
    """What a client may change while it talks; None leaves a setting as it is."""

    muted: bool | None = None
    stats_interval_ms: StatsInterval | None = None
    captions: bool | None = None


class OfferOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``options`` of an offer: the settings that hold from the start."""

    muted: bool = False
    stats_interval_ms: StatsInterval = 1000
    captions: bool = True
    wait: bool = False
    """For a model that starts, on a connection that is there already."""
    member: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    """Of a room: the member's token."""


class Reset(msgspec.Struct, frozen=True, tag="reset", forbid_unknown_fields=True):
    """Start a new conversation in the same session."""


class Ping(msgspec.Struct, frozen=True, tag="ping", forbid_unknown_fields=True):
    """Ask for a ``pong``."""

    id: PingId | None = None


class Bye(msgspec.Struct, frozen=True, tag="bye", forbid_unknown_fields=True):
    """End the session."""


ClientMessage = Settings | Reset | Ping | Bye | RoomCommand

_decoder: Final = msgspec.json.Decoder(ClientMessage)
_encoder: Final = msgspec.json.Encoder()


def parse_client_message(message: str | bytes) -> ClientMessage:
    """The typed form of one data-channel message.

    Raises MessageTooLarge over :data:`MAX_MESSAGE_BYTES`, BadMessage for binary messages and for anything
    that is not one of these messages with fields of the right types and ranges.
    """
    if isinstance(message, bytes):
        if len(message) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(MAX_MESSAGE_BYTES)
        raise BadMessage("Messages are JSON text; this one was binary.")
    # A character has at least one byte: refuse before spending on the encoding of a huge string.
    if len(message) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(MAX_MESSAGE_BYTES)
    try:
        raw = message.encode()
    except UnicodeEncodeError:
        raise BadMessage("The message is not valid Unicode.") from None
    if len(raw) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(MAX_MESSAGE_BYTES)
    try:
        parsed: ClientMessage = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadMessage from None
    return parsed


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    session: str
    service: str
    model: str
    speaks: bool
    writes: bool
    resumed: bool = False


class Starting(msgspec.Struct, frozen=True, tag="starting"):
    """The model is being started; in ``eta_ms``, as far as is known, it will be there."""

    eta_ms: int | None


class Text(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """``at_ms``: up to where the model had heard the microphone's audio."""

    delta: str
    at_ms: int | None = None


class State(msgspec.Struct, frozen=True, tag="state", omit_defaults=True):
    state: Literal["listening", "speaking"]
    reason: Literal["reset", "restarted"] | None = None


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    id: str | int | None = None


class Error(msgspec.Struct, frozen=True, tag="error"):
    code: str
    message: str
    retryable: bool


class Recovered(msgspec.Struct, frozen=True, tag="recovered"):
    """The trouble that an ``error`` with this code told of is over."""

    code: str


class Word(msgspec.Struct, frozen=True, tag="word"):
    """A word that was heard; times are in the microphone's audio."""

    text: str
    start_ms: int
    end_ms: int


class SpeechStarted(msgspec.Struct, frozen=True, tag="speech-started"):
    at_ms: int


class SpeechEnded(msgspec.Struct, frozen=True, tag="speech-ended"):
    at_ms: int


class TurnEnded(msgspec.Struct, frozen=True, tag="turn-ended"):
    at_ms: int


class Captions(msgspec.Struct, frozen=True, tag="captions", omit_defaults=True):
    """Whether the user's own words come as events; ``reason``: why they do not, by the code of an error."""

    state: Literal["on", "off"]
    reason: str | None = None


class Interrupted(msgspec.Struct, frozen=True, tag="interrupted"):
    """The user began to speak while the model was speaking."""

    at_ms: int


class Ending(msgspec.Struct, frozen=True, tag="ending"):
    """The session will end in ``in_ms``."""

    reason: Literal["time_limit"]
    in_ms: int


class Moving(msgspec.Struct, frozen=True, tag="moving"):
    """The server stops in ``in_ms``. Another one, which the same address leads to, goes on with the session for the
    client that resumes it."""

    in_ms: int


class Disconnected(msgspec.Struct, frozen=True, tag="disconnected"):
    reason: str


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """One period's figures; ``docs/protocol.md`` gives the unit and meaning of each."""

    packets_received: int = 0
    packets_lost: int = 0
    loss_in: float = 0.0
    loss_out: float = 0.0
    jitter_in_ms: float = 0.0
    rtt_ms: float | None = None
    frames_in: int = 0
    frames_out: int = 0
    frames_filled: int = 0
    frames_dropped: int = 0
    engine_ms: float | None = None
    playout_ms: float = 0.0
    underruns: int = 0
    level_in_dbfs: float = -100.0
    level_out_dbfs: float = -100.0
    packets_late: int = 0
    packets_duplicate: int = 0
    packets_bad: int = 0
    concealed_in: float = 0.0
    jitter_buffer_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class WordsComplete:
    """Every word that was said until ``until_ms`` has come. For services that take what their users say; no client
    gets it."""

    until_ms: int


Heard = Word | SpeechStarted | SpeechEnded | TurnEnded | Interrupted
ServerEvent = (
    Connected
    | Starting
    | Text
    | State
    | Heard
    | Captions
    | Pong
    | Error
    | Recovered
    | Ending
    | Moving
    | Disconnected
    | Stats
    | RoomEvent
)


def encode_event(event: ServerEvent, time_ms: float, seq: int | None = None) -> str:
    """``event`` as the JSON text that goes out, stamped with ``time_ms`` of the session and its number."""
    fields: dict[str, object] = msgspec.to_builtins(event)
    fields["time_ms"] = round(time_ms)
    if seq is not None:
        fields["seq"] = seq
    return _encoder.encode(fields).decode()
