"""Events as JSON, within bounds.

An event is read in two steps: its head, and then what its type has. What its type does not know is skipped and not
kept, so that a client cannot make the server hold what it does not need. Errors name a field, never a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from rtc_server.errors import ServerError
from rtc_server.protocols.openai.errors import BadEvent, error_body
from rtc_server.protocols.openai.ids import new_id

MAX_EVENT_BYTES: Final = 2 * 1024 * 1024
"""Of an event with audio: half a minute of it at 24 kHz, in base64. OpenAI takes 15 MiB, of which a model that hears in
real time would drop all but the end."""
MAX_PLAIN_BYTES: Final = 256 * 1024
"""Of all others. OpenAI's longest value is of 16,384 tokens."""
MAX_SDP_BYTES: Final = 64 * 1024
MAX_CALL_BYTES: Final = MAX_PLAIN_BYTES + MAX_SDP_BYTES
"""Of a request for a session over WebRTC: its settings, as an event on a WebSocket has them, and the offer."""
MAX_DEPTH: Final = 32
"""Of objects and lists within each other, in a value that is kept."""

CausedBy = Literal["event_id", "client_event_id"]
"""Where an error names the client's event that is to blame: as Realtime has it, and as Live has it."""

_E = TypeVar("_E", bound=msgspec.Struct)
_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")


class Head(msgspec.Struct, frozen=True):
    """What every event of a client has."""

    type: Annotated[str, msgspec.Meta(max_length=128)]
    event_id: Annotated[str, msgspec.Meta(max_length=512)] | None = None


_heads: Final = msgspec.json.Decoder(Head)
_encoder: Final = msgspec.json.Encoder()


def read_head(message: str | bytes, audio_types: Iterable[str] = ()) -> Head:
    """The type and the id of an event. ``audio_types``: those which carry audio and may be long.

    Raises BadEvent for what is binary, too long, no JSON, or no event.
    """
    if isinstance(message, bytes):
        raise BadEvent("invalid_json", "Events are JSON text; this message was binary.")
    if len(message) > MAX_EVENT_BYTES:
        raise _too_large(MAX_EVENT_BYTES, None)
    try:
        head = _heads.decode(message)
    except msgspec.ValidationError as error:
        raise _fault(error, None) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadEvent("invalid_json", "The event is not JSON.") from None
    if len(message) > MAX_PLAIN_BYTES and head.type not in audio_types:
        raise _too_large(MAX_PLAIN_BYTES, head.event_id)
    return head


def read_event(message: str | bytes, head: Head, decoder: msgspec.json.Decoder[_E]) -> _E:
    """The event whose head was read, as its type has it. Raises BadEvent."""
    try:
        return decoder.decode(message)
    except msgspec.ValidationError as error:
        raise _fault(error, head.event_id) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadEvent("invalid_json", "The event is not JSON.", event_id=head.event_id) from None


def unknown_event(head: Head, known: Iterable[str]) -> BadEvent:
    """What a client is told whose event has a type that the door does not know."""
    types = ", ".join(sorted(known))
    return BadEvent("unknown_event", f"There is no such event here. There are: {types}.", "type", head.event_id)


def require_shallow(value: object, param: str) -> None:
    """Raises BadEvent for a value of JSON, which is going to be kept, that is deeper than :data:`MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise BadEvent("invalid_value", f"It is nested more than {MAX_DEPTH} levels deep.", param)


def encode_event(event: Mapping[str, Any] | msgspec.Struct) -> str:
    """An event as text."""
    return _encoder.encode(event).decode()


def error_event(error: ServerError, caused_by: CausedBy, event_id: str | None = None) -> str:
    """An ``error`` event. ``event_id``: of the client's event that is to blame, where the error does not say it."""
    body = error_body(error)
    cause = error.event_id if isinstance(error, BadEvent) and error.event_id is not None else event_id
    fields: dict[str, Any] = {"type": "error", "event_id": new_id("event"), "error": body}
    if caused_by == "event_id":
        body["event_id"] = cause
    elif cause is not None:
        body["client_event_id"] = fields["client_event_id"] = cause
    return encode_event(fields)


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _too_large(limit_bytes: int, event_id: str | None) -> BadEvent:
    return BadEvent("too_large", f"An event of this kind may have at most {limit_bytes} bytes.", event_id=event_id)


def _fault(error: msgspec.ValidationError, event_id: str | None) -> BadEvent:
    """msgspec's sentences name the path and the type that it wants, never the value."""
    text = str(error)
    place = _PATH.search(text)
    path = "" if place is None else place[1]
    missing = _MISSING.search(text)
    if missing is None:
        return BadEvent("invalid_value", f"{_PATH.sub('', text)}.", path or None, event_id)
    param = f"{path}.{missing[1]}".lstrip(".")
    return BadEvent("missing_required_parameter", f"Missing required parameter: '{param}'.", param, event_id)
