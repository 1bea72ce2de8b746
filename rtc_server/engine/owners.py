"""Who holds an engine's slots: the process that started it, or media nodes, and for how long each has been silent.

Pure: times are arguments, in seconds. Silence counts only while it is watched: an engine that was itself held up has
not heard what was said meanwhile, and takes no slot away for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

Owner = bytes
"""The name that a media node gives itself: random, and another one for each of its links."""
HOST: Final[Owner] = b""
"""The process that started the engine. It is never silent: when it ends, so does the engine."""
MAX_OWNERS: Final = 256
LOOK_S: Final = 0.5
"""How often to look."""
GRACE_S: Final = 33.0
"""A silent owner's slots are kept for so long: 3 s in which a network may mend itself, and the 30 s that a session
waits for its client, who may come back by way of another node."""


class Owners:
    """Of one engine. ``grace_s``: of silence, after which an owner is forgotten."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self._silent_s: dict[Owner, float] = {}
        self._looked_at = math.inf

    def __contains__(self, owner: Owner) -> bool:
        return owner == HOST or owner in self._silent_s

    def __iter__(self) -> Iterator[Owner]:
        return iter((HOST, *self._silent_s))

    def greet(self, owner: Owner) -> bool:
        """Take an owner in; False if there are too many."""
        if owner not in self:
            if len(self._silent_s) >= MAX_OWNERS:
                return False
            self._silent_s[owner] = 0.0
        return True

    def heard(self, owner: Owner) -> None:
        """A message of one that is known has come."""
        if owner in self._silent_s:
            self._silent_s[owner] = 0.0

    def forget(self, owner: Owner) -> None:
        self._silent_s.pop(owner, None)

    def look(self, now: float) -> list[Owner]:
        """Forget those who have been silent for too long, and return them. To be called every :data:`LOOK_S`."""
        passed = min(max(0.0, now - self._looked_at), 2 * LOOK_S)
        self._looked_at = now
        for owner in self._silent_s:
            self._silent_s[owner] += passed
        gone = [owner for owner, silent_s in self._silent_s.items() if silent_s > self._grace_s]
        for owner in gone:
            self.forget(owner)
        return gone

    @property
    def watched(self) -> bool:
        """Whether there is one that may fall silent."""
        return bool(self._silent_s)
