"""The client's events of OpenAI Realtime (GA names): text in, values out. No state, no IO."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from rtc_server.protocols.openai.errors import BadEvent
from rtc_server.protocols.openai.events import Head, read_event, read_head, unknown_event

APPEND: Final = "input_audio_buffer.append"
_Id = Annotated[str, msgspec.Meta(max_length=64)]


class SessionUpdate(msgspec.Struct, frozen=True):
    session: dict[str, Any]


class Append(msgspec.Struct, frozen=True):
    audio: str


class Commit(msgspec.Struct, frozen=True):
    """What was said since the last one becomes an item."""


class Clear(msgspec.Struct, frozen=True):
    """Forget the audio that was sent and not heard yet."""


class ResponseOptions(msgspec.Struct, frozen=True):
    """What has a meaning of ``response``: ``metadata`` comes back, which is how clients know their own."""

    metadata: dict[str, Any] | None = None


class ResponseCreate(msgspec.Struct, frozen=True):
    response: ResponseOptions | None = None


class ResponseCancel(msgspec.Struct, frozen=True):
    response_id: _Id | None = None


class ItemCreate(msgspec.Struct, frozen=True):
    item: dict[str, Any]


class ItemRetrieve(msgspec.Struct, frozen=True):
    item_id: str


class ItemDelete(msgspec.Struct, frozen=True):
    item_id: str


class ItemTruncate(msgspec.Struct, frozen=True):
    item_id: str
    content_index: int
    audio_end_ms: int


class OutputClear(msgspec.Struct, frozen=True):
    """Throw away the voice that has not been played."""


ClientEvent = (
    SessionUpdate
    | Append
    | Commit
    | Clear
    | ResponseCreate
    | ResponseCancel
    | ItemCreate
    | ItemRetrieve
    | ItemDelete
    | ItemTruncate
    | OutputClear
)

_KINDS: Final[dict[str, type[ClientEvent]]] = {
    "session.update": SessionUpdate,
    APPEND: Append,
    "input_audio_buffer.commit": Commit,
    "input_audio_buffer.clear": Clear,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
    "conversation.item.create": ItemCreate,
    "conversation.item.retrieve": ItemRetrieve,
    "conversation.item.delete": ItemDelete,
    "conversation.item.truncate": ItemTruncate,
    "output_audio_buffer.clear": OutputClear,
}
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in _KINDS.items()}


def read_client_event(message: str | bytes) -> tuple[Head, ClientEvent]:
    """A client's event, and its head. Raises BadEvent for what is none, or none that is known."""
    head = read_head(message, audio_types=(APPEND,))
    decoder = _DECODERS.get(head.type)
    if decoder is None:
        raise unknown_event(head, _DECODERS)
    assert isinstance(message, str), "read_head takes text alone"
    return head, read_event(message, head, decoder)


def is_audio(message: str | bytes) -> bool:
    """Whether an event carries audio; False for what is none."""
    try:
        return read_head(message, audio_types=(APPEND,)).type == APPEND
    except BadEvent:
        return False
