"""How many clients wait for a slot, of those that were told to come back. Pure: times are arguments, in seconds.

A client that is refused is not there any more; it counts until it should have come back, and as one client when it
comes back and is refused again.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_LATE_S: Final = 3.0
"""That a client may come later than it was told to."""
_MOST: Final = 10_000


class Waiting:
    """Of one service."""

    def __init__(self) -> None:
        self._due_at: deque[float] = deque(maxlen=_MOST)

    def refused(self, retry_after_s: float, now: float) -> None:
        """A client was told to come back so much later."""
        if self._due_at and self._due_at[0] <= now:
            self._due_at.popleft()  # it was told so before, and came
        self._due_at.append(now + retry_after_s)

    def served(self) -> None:
        """A client has its slot."""
        if self._due_at:
            self._due_at.popleft()

    def count(self, now: float) -> int:
        while self._due_at and self._due_at[0] + _LATE_S < now:
            self._due_at.popleft()
        return len(self._due_at)
