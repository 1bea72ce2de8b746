"""What of a room lasts longer than the process that it is in: its name, its members, what was said last. Structs, and
how they are written. No sound, and no token but its digest.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rtc_server.protocols.rooms import Kind, MemberChange, Original, RoomEvent, RoomMessage
from rtc_server.rooms.message import Message, Rendering

KEPT_MESSAGES: Final = 50
RESERVED: Final = 4096
"""Numbers of events and messages that a new home leaves out: the one before may have given them away, and not have
come to write down what had them."""
_MOST_TEXTS: Final = 64 * 1024
"""Characters of one message's translations, of all languages."""


class MemberRecord(msgspec.Struct, frozen=True, array_like=True):
    """``digest``: of the token."""

    id: str
    name: str
    language: str
    original: Original
    digest: bytes


class RoomRecord(msgspec.Struct, frozen=True, array_like=True):
    """``last_member``: the number of the last one who joined."""

    name: str
    private: bool
    last_member: int
    members: list[MemberRecord]


class RenderingRecord(msgspec.Struct, frozen=True, array_like=True):
    """A translation that is there, or one that failed for a ``reason``."""

    text: str
    reason: str | None


class MessageRecord(msgspec.Struct, frozen=True, array_like=True):
    """``renderings``: by language, those that are settled."""

    id: str
    member: str
    name: str
    language: str
    voice: int
    kind: Kind
    original: str
    spoken_ms: int
    renderings: dict[str, RenderingRecord]
    only: str = ""
    elsewhere: str = ""

    def message(self, now: float) -> Message:
        """As it goes on in another process."""
        renderings = {
            language: Rendering("ready" if each.reason is None else "failed", each.text, each.reason)
            for language, each in self.renderings.items()
        }
        said = (self.id, self.member, self.name, self.language, self.voice, self.kind, self.original, self.spoken_ms)
        return Message(*said, now, renderings, self.only, self.elsewhere)


def record_of(message: Message) -> MessageRecord:
    """A message without its sounds, and without what is still to be translated. One that grows is what there is of
    it."""
    settled: dict[str, RenderingRecord] = {}
    left = _MOST_TEXTS
    for language, each in message.renderings.items():
        left -= len(each.text)
        if (each.state != "pending" or each.text) and left >= 0:
            settled[language] = RenderingRecord(each.text, each.reason)
    return MessageRecord(
        message.id,
        message.member,
        message.name,
        message.language,
        message.voice,
        message.kind,
        message.original,
        message.spoken_ms,
        settled,
        message.only,
        message.elsewhere,
    )


_rooms: Final = msgspec.msgpack.Decoder(RoomRecord)
_messages: Final = msgspec.msgpack.Decoder(MessageRecord)
_events: Final = msgspec.json.Decoder(RoomEvent)


def write(record: RoomRecord | MessageRecord) -> bytes:
    return msgspec.msgpack.encode(record)


def read_room(raw: bytes) -> RoomRecord:
    """Raises msgspec.DecodeError for what another release may have written."""
    return _rooms.decode(raw)


def read_message(raw: bytes) -> MessageRecord:
    """Raises msgspec.DecodeError."""
    return _messages.decode(raw)


def write_event(event: RoomEvent) -> bytes:
    return msgspec.json.encode(event)


def read_event(raw: bytes) -> RoomEvent:
    """Raises msgspec.DecodeError."""
    event: RoomEvent = _events.decode(raw)
    return event


def lasts(event: RoomEvent, number: int) -> bool:
    """Whether an event is written down. Who speaks has stopped when another process could tell of it, and what grows is
    written when it has grown; one such event in many is written all the same, for its number."""
    if isinstance(event, RoomMessage) and not event.grows:
        return True
    return isinstance(event, MemberChange) or number % (RESERVED // 8) == 0
