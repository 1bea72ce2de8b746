"""A member of a room without a session: what it is told, and what it hears."""

from __future__ import annotations

from typing import Any

from rtc_server.errors import ServerError
from rtc_server.protocols.rooms import RoomEvent, RoomMessage
from rtc_server.rooms.member import Member
from rtc_server.rooms.room import Room


class Client:
    """A member's session that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[RoomEvent] = []
        self.ended = 0
        self.warned: list[bool] = []

    def tell(self, event: RoomEvent) -> None:
        self.events.append(event)

    def warn(self, error: ServerError, over: bool = False) -> None:
        self.warned.append(over)

    def end(self, moved: bool = False) -> None:
        self.ended += 1

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def messages(self) -> list[tuple[str, str, str]]:
        return [(each.id, each.text, each.state) for each in self.of(RoomMessage)]


def seated(room: Room, name: str, language: str) -> tuple[Member, Client]:
    member, _ = room.join(name, language, 0.0)
    client = Client()
    room.sit(member, client, 0.0)
    return member, client
