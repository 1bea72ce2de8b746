"""Tells whether a microphone has picked up what its member was just played: a translation that is not to be translated
back. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

_TAIL_S: Final = 0.6
"""Rooms and buffers: what is picked up begins so long after the playing has ended, at most."""
_LIKE: Final = 0.75
"""Of its words, so many are those that were played."""
_LEAST_WORDS: Final = 2
"""A single word is as likely an answer."""
_KEPT: Final = 8


@dataclass(slots=True)
class _Played:
    message: str
    words: Counter[str]
    started_at: float
    ended_at: float | None = None


class Echoes:
    """Of one member: what was played lately."""

    def __init__(self) -> None:
        self._played: deque[_Played] = deque(maxlen=_KEPT)

    def started(self, message: str, text: str, now: float) -> None:
        self._played.append(_Played(message, Counter(_words(text)), now))

    def grew(self, message: str, text: str) -> None:
        """More of it is being played."""
        for played in self._played:
            if played.message == message:
                played.words = Counter(_words(text))

    def ended(self, message: str, now: float) -> None:
        for played in self._played:
            if played.message == message:
                played.ended_at = now

    def has(self, text: str, began_at: float) -> bool:
        """Whether ``text``, whose speech began at ``began_at``, is what was being played then."""
        words = Counter(_words(text))
        if words.total() < _LEAST_WORDS:
            return False
        return any(
            played.started_at <= began_at <= (played.ended_at or began_at) + _TAIL_S
            and (words & played.words).total() >= _LIKE * words.total()
            for played in self._played
        )


def _words(text: str) -> list[str]:
    return "".join(char if char.isalnum() else " " for char in text.casefold()).split()
