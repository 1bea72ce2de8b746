"""What members of a translated room and the server say to each other: ``docs/rooms.md``. Structs alone."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

MAX_TEXT: Final = 2000
MAX_NAME: Final = 64
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Language = Annotated[str, msgspec.Meta(pattern="^[a-z]{2,3}$")]
"""The primary subtag of a language's name (BCP 47)."""
Original = Literal["under", "off", "only"]
Kind = Literal["speech", "text"]
State = Literal["pending", "ready", "failed"]


class Say(msgspec.Struct, frozen=True, tag="say", forbid_unknown_fields=True):
    """Say something in writing."""

    text: Text


class RoomSettings(msgspec.Struct, frozen=True, tag="room-settings", forbid_unknown_fields=True):
    """What a member may change at any time; None leaves a setting as it is."""

    language: Language | None = None
    name: Name | None = None
    original: Original | None = None


RoomCommand = Say | RoomSettings


class RoomName(msgspec.Struct, frozen=True):
    id: str
    name: str


class MemberView(msgspec.Struct, frozen=True):
    """``here``: whether the member has a session or an event stream just now."""

    id: str
    name: str
    language: str
    here: bool


class RoomState(msgspec.Struct, frozen=True, tag="room"):
    room: RoomName
    you: str
    members: list[MemberView]


class MemberChange(msgspec.Struct, frozen=True, tag="member"):
    member: MemberView
    change: Literal["joined", "left", "changed"]


class Speaking(msgspec.Struct, frozen=True, tag="speaking"):
    member: str
    on: bool


class RoomMessage(msgspec.Struct, frozen=True, tag="message"):
    """One message, to one member: ``text`` is in that member's language once ``state`` is ready, and before where it
    ``grows``."""

    id: str
    user: str
    name: str
    language: str
    kind: Kind
    text: str
    original: str
    state: State
    reason: str | None
    audio: str | None
    spoken_ms: int
    grows: bool = False


class Playing(msgspec.Struct, frozen=True, tag="playing"):
    message: str
    state: Literal["started", "ended", "skipped"]


RoomEvent = RoomState | MemberChange | Speaking | RoomMessage | Playing
