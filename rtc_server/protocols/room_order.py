"""The order in which a client gets a room's messages that can take each of them once. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rtc_server.protocols.rooms import RoomMessage

PATIENCE_S: Final = 15.0
"""For which a message that is not translated holds up those behind it: longer than a translation may take."""


class InOrder:
    """What of a room's messages goes to one client: those after ``last``, each once, in the order in which they were
    said, when nothing more will change of it. Times are monotonic seconds."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._waiting: dict[int, tuple[float, RoomMessage]] = {}

    def take(self, message: RoomMessage, now: float) -> Iterator[RoomMessage]:
        """A message is there, or has changed: those that can go now. One that nothing becomes of is left out."""
        number = int(message.id)
        if number > self._last:
            since, _ = self._waiting.get(number, (now, message))
            self._waiting[number] = since, message
        while self._waiting:
            first = min(self._waiting)
            since, next_one = self._waiting[first]
            waits = next_one.state == "pending"
            if waits and now - since < PATIENCE_S:
                return
            self._last = first
            del self._waiting[first]
            if not waits:
                yield next_one
