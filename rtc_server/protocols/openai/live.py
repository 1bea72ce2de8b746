"""OpenAI Live: what its clients send, and what a session is told in its words. No IO, no clock.

A protocol without turns: audio both ways all the time. ``docs/doors.md`` says what of it this server does, and what is
ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from rtc_server.audio import FRAME_MS
from rtc_server.errors import ServerError
from rtc_server.protocols import events
from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import (
    MAX_SDP_BYTES,
    Head,
    encode_event,
    error_event,
    read_event,
    read_head,
    require_shallow,
    unknown_event,
)
from rtc_server.protocols.openai.formats import LIVE_FORMATS, AudioFormat, decode_audio, encode_audio, find_format
from rtc_server.protocols.openai.ids import new_id

START: Final = "session.start"
APPEND_AUDIO: Final = "session.input_audio.append"
_CAUSED_BY: Final = "client_event_id"
_MAX_KEPT_BYTES: Final = 64 * 1024
"""Of what a client wants to be told again: how it would have tasks delegated."""
_USAGE_MS: Final = 10_000
_CLOSED: Final = {"bye": "close_requested", "deleted": "close_requested", "time_limit": "expired"}
"""Reasons of a session's end. All others are a connection lost, in the words of this protocol."""

# To which the model cannot listen: it hears, and reads nothing.
_APPENDS: Final = ("session.instructions.append", "session.thinking.append", "session.commentary.append")
# Of delegated tasks, which this server's models never ask for; and of prerecorded replies.
_NOT_HERE: Final = (
    "response.create",
    "response.item.create",
    "decision.create",
    "decision.item.create",
    "decision.item.delete",
    "session.output_audio.fixture.play",
    "transport.dtmf.send",
)


class BadStart(BadEvent):
    """A session cannot be as its client wants it."""


class _Format(msgspec.Struct):
    type: str
    rate: int | None = None


class _Audio(msgspec.Struct):
    format: _Format | None = None


class _Selector(msgspec.Struct):
    type: str


class _DataChannel(msgspec.Struct):
    allowed_client_events: str | list[str] | None = None
    allowed_server_events: str | list[_Selector] | None = None


class _Client(msgspec.Struct):
    data_channel: _DataChannel


class _Config(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    audio: _Audio | None = None
    delegation: dict[str, Any] | None = None
    triggers: list[Any] | None = None
    instructions: str | None = None
    input: list[msgspec.Raw] | None = None
    client: _Client | None = None


class _Start(msgspec.Struct):
    session: _Config


class _Transport(msgspec.Struct):
    type: str
    sdp: str


class _Call(msgspec.Struct):
    session: _Config
    transport: _Transport


class _Append(msgspec.Struct):
    audio: str


class _Change(msgspec.Struct):
    delegation: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    triggers: list[Any] | msgspec.UnsetType = msgspec.UNSET
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    instructions: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    audio: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Update(msgspec.Struct):
    session: _Change


_heads: Final = msgspec.json.Decoder(_Selector)
_starts: Final = msgspec.json.Decoder(_Start)
_calls: Final = msgspec.json.Decoder(_Call)
_appends: Final = msgspec.json.Decoder(_Append)
_updates: Final = msgspec.json.Decoder(_Update)


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How a client wants its session. ``format``: None where audio does not go in events. ``unheard``: it would have
    told the model things that the model cannot be told. ``client_events`` and ``server_events``: that may go over the
    data channel of a page, which its application does not trust; None is all."""

    model: str
    format: AudioFormat | None
    delegation: dict[str, Any] | None
    triggers: list[Any] | None
    unheard: bool
    client_events: frozenset[str] | None = None
    server_events: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client's event asks for: at most one of these, and what is said to it."""

    audio: bytes = b""
    command: events.ClientMessage | None = None
    closes: bool = False
    reply: str | None = None


def head_of(message: str | bytes) -> Head:
    """Of any client's event. Raises BadEvent."""
    return read_head(message, (APPEND_AUDIO,))


def type_of(told: str) -> str:
    """The type of an event of the server's own."""
    return _heads.decode(told).type


def is_audio(message: str | bytes) -> bool:
    """Whether an event carries audio; False for what is none."""
    try:
        return head_of(message).type == APPEND_AUDIO
    except BadEvent:
        return False


def read_start(message: str | bytes) -> tuple[SessionConfig, str | None]:
    """A session's start on a WebSocket, and the client's id of it. Raises BadStart; BadEvent for what may not come
    before it, and may be followed by it."""
    head = head_of(message)
    if head.type != START:
        if head.type not in _KNOWN:
            raise unknown_event(head, _KNOWN)
        raise BadEvent("session_not_started", "The first event is session.start.", "type", head.event_id)
    try:
        return _checked(read_event(message, head, _starts).session, with_format=True), head.event_id
    except BadEvent as error:
        raise BadStart(error.event_code, error.message, error.param, head.event_id) from None


def read_call(body: bytes) -> tuple[SessionConfig, str]:
    """The body of a request for a session over WebRTC: how it shall be, and the offer's SDP. Raises BadEvent."""
    head = Head("session")
    call = read_event(body, head, _calls)
    if len(call.transport.sdp) > MAX_SDP_BYTES:
        raise BadEvent("too_large", f"An offer may have at most {MAX_SDP_BYTES} bytes.", "transport.sdp")
    if call.transport.type != "webrtc":
        raise BadEvent("invalid_value", "The transport that there is is webrtc.", "transport.type")
    if call.session.audio is not None and call.session.audio.format is not None:
        raise BadEvent("invalid_value", "WebRTC negotiates the audio format itself.", "session.audio.format")
    return _checked(call.session, with_format=False), call.transport.sdp


def _checked(config: _Config, with_format: bool) -> SessionConfig:
    named = None if config.audio is None else config.audio.format
    audio_format = AudioFormat.PCM_24K
    if named is not None:
        audio_format = find_format(named.type, named.rate, LIVE_FORMATS, "session.audio.format")
    _require_small(config.delegation, "session.delegation")
    _require_small(config.triggers, "session.triggers")
    return SessionConfig(
        config.model,
        audio_format if with_format else None,
        config.delegation,
        config.triggers,
        bool(config.instructions or config.input),
        *_allowed(config.client),
    )


def _allowed(client: _Client | None) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """A page's events, and those that it is told."""
    if client is None:
        return None, None
    sent, told = client.data_channel.allowed_client_events, client.data_channel.allowed_server_events
    for name, value in (("client", sent), ("server", told)):
        if isinstance(value, str) and value != "all":
            param = f"session.client.data_channel.allowed_{name}_events"
            raise BadEvent("invalid_value", "It is a list of events, or 'all'.", param)
    return (
        frozenset(sent) if isinstance(sent, list) else None,
        frozenset(each.type for each in told) if isinstance(told, list) else None,
    )


def _require_small(value: object, param: str) -> None:
    require_shallow(value, param)
    if len(msgspec.json.encode(value)) > _MAX_KEPT_BYTES:
        raise BadEvent("too_large", f"This may have at most {_MAX_KEPT_BYTES} bytes.", param)


class LiveSession:
    """The server's side of one session. ``session_id``: as its client is told; ``expires_at``: in seconds since 1970;
    ``start_cause``: the client's id of its start. Times are those of the model's audio, frame by frame.
    """

    def __init__(
        self, session_id: str, expires_at: float, config: SessionConfig, start_cause: str | None = None
    ) -> None:
        self._id = session_id
        self._expires_at = round(expires_at)
        self._config = config
        self._delegation = config.delegation
        self._triggers = config.triggers
        self._played_ms = 0
        self._used_ms = self._usage_told_ms = 0
        self._start_cause = start_cause
        self._close_cause: str | None = None

    def receive(self, message: str | bytes, head: Head) -> Asked:
        """A client's event, whose head was read. Raises BadEvent for one that is refused; the session goes on."""
        try:
            return self._obey(head, message)
        except BadEvent as error:
            raise BadEvent(error.event_code, error.message, error.param, head.event_id) from None

    def play(self) -> None:
        """A frame of the model's audio goes out."""
        self._played_ms += FRAME_MS

    def tell(self, event: events.ServerEvent) -> list[str]:
        """What happens in the session, in events of this protocol: mostly one, or none. What the model writes comes
        before the frame that it is said in."""
        told: list[str] = []
        match event:
            case events.Connected():
                told = self.started()
            case events.Text(delta):
                told = [self._transcript("output", delta, self._played_ms, self._played_ms + FRAME_MS)]
            case events.Word(text, start_ms, end_ms):
                told = [self._transcript("input", f" {text}", start_ms, end_ms)]
            case events.Error(code, sentence):
                told = [self._event("error", None, error={"type": "server_error", "code": code, "message": sentence})]
            case events.Recovered(code):
                told = [self._event("info", None, code=f"{code}_over", message="The conversation goes on.")]
            case events.State(_, "restarted"):
                sentence = "Another model goes on: it does not know what was said."
                told = [self._event("info", None, code="conversation_restarted", message=sentence)]
            case events.Ending(reason, in_ms):
                told = [self._event("info", None, code=reason, message=f"The session ends in {in_ms // 1000} s.")]
            case events.Stats():
                told = self._usage_so_far(event)
            case events.Disconnected(why):
                last = {"reason": _CLOSED.get(why, "connection_lost"), "session": self._resource()}
                told = [self._event("session.closed", self._close_cause, **last, usage=self._usage())]
            case _:
                pass
        return told

    def started(self) -> list[str]:
        """What the session is: the first events of a connection to it."""
        started = [self._event("session.started", self._start_cause, session=self._resource())]
        if self._config.unheard:
            sentence = "The model hears and does not read: instructions and earlier messages are not given to it."
            started.append(self._event("info", None, code="instructions_ignored", message=sentence))
        return started

    def _obey(self, head: Head, message: str | bytes) -> Asked:
        match head.type:
            case "session.input_audio.append" if self._config.format is not None:
                return Asked(audio=decode_audio(read_event(message, head, _appends).audio, self._config.format))
            case "session.input_audio.append":
                raise BadEvent("unsupported_event", "Audio comes by WebRTC here, and in no event.", "type")
            case "session.input_audio.mute":
                return self._mute(True, "session.input_audio.muted", head)
            case "session.input_audio.unmute":
                return self._mute(False, "session.input_audio.unmuted", head)
            case "session.update":
                self._change(read_event(message, head, _updates).session)
                return Asked(reply=self._event("session.updated", head.event_id, session=self._resource()))
            case "session.close":
                self._close_cause = head.event_id
                return Asked(closes=True)
            case "session.start":
                raise BadEvent("session_already_started", "The session has started already.", "type")
            case append if append in _APPENDS:
                raise BadEvent("unsupported", "The model hears and does not read: nothing can be told to it.", "type")
            case other if other in _NOT_HERE:
                raise BadEvent("unsupported_event", "Nothing is delegated here, and no fixture played.", "type")
            case _:
                raise unknown_event(head, _KNOWN)

    def _usage_so_far(self, stats: events.Stats) -> list[str]:
        """Now and then. A model that only writes plays nothing: what it hears is what it takes."""
        self._used_ms = stats.frames_in * FRAME_MS
        if self._used_ms - self._usage_told_ms < _USAGE_MS:
            return []
        self._usage_told_ms = self._used_ms
        return [self._event("session.usage.updated", None, usage=self._usage())]

    def _usage(self) -> dict[str, int]:
        return {"seconds": max(self._used_ms, self._played_ms) // 1000}

    def _mute(self, muted: bool, acknowledgement: str, head: Head) -> Asked:
        return Asked(command=events.Settings(muted=muted), reply=self._event(acknowledgement, head.event_id))

    def _change(self, change: _Change) -> None:
        for name in ("model", "instructions", "audio", "input"):
            if getattr(change, name) is not msgspec.UNSET:
                raise BadEvent("immutable_parameter", "It cannot change after the start.", f"session.{name}")
        delegation, triggers = self._delegation, self._triggers
        if change.delegation is not msgspec.UNSET:
            delegation = _merged(delegation, change.delegation)
            _require_small(delegation, "session.delegation")
        if change.triggers is not msgspec.UNSET:
            triggers = change.triggers
            _require_small(triggers, "session.triggers")
        self._delegation, self._triggers = delegation, triggers

    def _resource(self) -> dict[str, Any]:
        audio_format = self._config.format
        resource: dict[str, Any] = {
            "id": self._id,
            "expires_at": self._expires_at,
            "model": self._config.model,
            "status": "active",
            "audio": {} if audio_format is None else {"format": audio_format.as_dict()},
            "delegation": self._delegation or {"type": "client"},
        }
        return resource if self._triggers is None else resource | {"triggers": self._triggers}

    def _transcript(self, side: str, delta: str, start_ms: int, end_ms: int) -> str:
        return self._event(f"session.{side}_transcript.delta", None, delta=delta, start_ms=start_ms, end_ms=end_ms)

    @staticmethod
    def _event(type_: str, cause: str | None, **fields: Any) -> str:
        event = {"type": type_, "event_id": new_id("event")} | fields
        return encode_event(event if cause is None else event | {_CAUSED_BY: cause})


def audio_event(raw: bytes) -> str:
    """The model's voice, as bytes of the session's format."""
    return encode_event({"type": "session.output_audio.delta", "delta": encode_audio(raw)})


def refusal(error: ServerError, cause: str | None = None) -> str:
    """Any typed error as an event. ``cause``: the client's id of the event that is to blame, where the error does not
    say it."""
    return error_event(error, _CAUSED_BY, cause)


def _merged(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any]:
    """What is left out keeps its value, also one level down. Raises BadEvent for another kind of delegation."""
    before = old or {"type": "client"}
    change = {"type": "client"} if new is None else new
    if change.get("type") != before.get("type"):
        raise BadEvent("immutable_parameter", "It cannot change after the start.", "session.delegation.type")
    inner = {
        name: before[name] | value
        for name, value in change.items()
        if isinstance(value, dict) and isinstance(before.get(name), dict)
    }
    return before | change | inner


_KNOWN: Final = (
    START,
    APPEND_AUDIO,
    "session.input_audio.mute",
    "session.input_audio.unmute",
    "session.update",
    "session.close",
    *_APPENDS,
    *_NOT_HERE,
)
