"""Who may use the translator now, of all rooms, and who waits for it: bounded, the rooms in turn, none in the place of
another.

Knows nothing of translations.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Final

MOST: Final = 64
"""That are taken, of all rooms. One room may have as many as are free beside its own: half of them if it is alone, a
third if two want all they can get. So no room takes those of the others."""
MOST_WAITING: Final = 128
"""Of one room: four who say something at once in a room of 30 languages, each of which is a translation."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """``free``: done when the place may be used."""

    room: str
    free: asyncio.Future[None]


class Places:
    """Of one translator."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[Place]] = OrderedDict()

    @property
    def taken(self) -> int:
        """Of all rooms."""
        return self._taken.total()

    def take(self, room: str) -> Place | None:
        """A place that may be used at once; None if the room has none that is free."""
        if room in self._waiting or not self._is_free(room):
            return None
        return self._taken_by(Place(room, asyncio.get_running_loop().create_future()))

    def ask(self, room: str) -> Place | None:
        """A place, at once or in turn; None if too much of the room waits already."""
        place = self.take(room)
        if place is not None:
            return place
        queue = self._waiting.setdefault(room, deque())
        if len(queue) >= MOST_WAITING:
            return None
        place = Place(room, asyncio.get_running_loop().create_future())
        queue.append(place)
        return place

    def give_back(self, place: Place) -> None:
        """It is not wanted any more, whether it was free or waited for."""
        queue = self._waiting.get(place.room)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._waiting[place.room]
            return
        self._taken[place.room] -= 1
        self._taken += Counter()  # which leaves out what is 0
        self._hand_out()

    def _hand_out(self) -> None:
        """Rooms take turns, so that one which waits for much is not before one that waits for little."""
        while room := next(filter(self._is_free, self._waiting), None):
            queue = self._waiting.pop(room)
            self._taken_by(queue.popleft())
            if queue:
                self._waiting[room] = queue

    def _is_free(self, room: str) -> bool:
        return self._taken[room] < MOST - self.taken

    def _taken_by(self, place: Place) -> Place:
        self._taken[place.room] += 1
        if not place.free.done():  # who waits may have given up just now, and gives it back
            place.free.set_result(None)
        return place
