"""An interpreter's booth: a room of one speaker, who hears what is said there in another language, and nothing else.

Two members make it: the speaker, and the speaker's ear, in the language into which it is translated.
"""

from __future__ import annotations

from collections.abc import Iterator

from rtc_server.errors import UnsupportedPair
from rtc_server.protocols.rooms import RoomSettings
from rtc_server.rooms.lobby import Lobby
from rtc_server.rooms.member import Member
from rtc_server.rooms.room import Room

_NAME = "Booth"


class Booth:
    """``target``: None for the first language that there is. ``token``: that of the speaker, with which a session is
    opened. Raises UnsupportedPair where what is said cannot be had in ``target``, ServerFull."""

    def __init__(self, lobby: Lobby, target: str | None) -> None:
        self._lobby = lobby
        source, target = _pair(lobby, target)
        self.room = lobby.create(_NAME, private=True)
        now = lobby.clock()
        self.speaker, self.token = self.room.join("speaker", source, now)
        ear, _ = self.room.join("listener", target, now)
        self.room.change(ear, RoomSettings(original="off"), now)
        self.speaker.ear = ear

    @property
    def target(self) -> str:
        assert self.speaker.ear is not None
        return self.speaker.ear.language

    def close(self) -> None:
        """For one in which no session begins. Idempotent."""
        leave(self.room, self.speaker, self._lobby.clock())


def leave(room: Room, speaker: Member, now: float) -> None:
    """The booth is empty."""
    for member in (speaker, speaker.ear):
        if member is not None:
            room.leave(member, now)


def retarget(lobby: Lobby, room: Room, speaker: Member, target: str) -> None:
    """Go on into another language. Raises UnsupportedPair."""
    assert speaker.ear is not None
    source, target = _pair(lobby, target)
    now = lobby.clock()
    room.change(speaker, RoomSettings(language=source), now)
    room.change(speaker.ear, RoomSettings(language=target), now)


def require_target(lobby: Lobby, target: str) -> None:
    """Raises UnsupportedPair."""
    _pair(lobby, target)


def _pair(lobby: Lobby, target: str | None) -> tuple[str, str]:
    """From the first language that is understood of those that are translated to ``target``."""
    pairs, speaks = lobby.pairs, lobby.speaks
    for source in _heard(lobby):
        targets = sorted(each for first, each in pairs if first == source and each in speaks)
        if target is None and targets:
            return source, targets[0]
        if target is not None and (source, target) in pairs:
            return source, target
    raise UnsupportedPair


def _heard(lobby: Lobby) -> Iterator[str]:
    """Languages that are understood, those of the recognisers first."""
    for engine in lobby.recognisers:
        if engine.info is not None:
            yield from engine.info.languages
    yield from sorted(lobby.interpreter.hears)
    yield from sorted(lobby.simultaneous.hears)
