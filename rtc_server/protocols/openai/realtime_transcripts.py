"""Which of the user's items a word belongs to. Pure; times are monotonic seconds, and milliseconds of the microphone.

Words come later than the speech that they are of: a transcribing model takes its time. So those of an item come while
it is open, and for a while after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

QUIET_S: Final = 1.6
"""After the last word of an item that is over, or its end, in which none of its words comes any more: more than
Kyutai's models and Pico-STT need."""
_EARLY_MS: Final = 400
"""By how much a word may begin before the detector has noticed the speech that it is of."""


@dataclass(slots=True)
class Transcript:
    """Of one item, so far. ``told``: as much of it as the client knows."""

    item_id: str
    start_ms: int
    end_ms: int | None = None
    text: str = ""
    told: int = 0
    changed_at: float = 0.0

    @property
    def over(self) -> bool:
        return self.end_ms is not None

    @property
    def seconds(self) -> float:
        return 0.0 if self.end_ms is None else max(0, self.end_ms - self.start_ms) / 1000

    def untold(self) -> str:
        """What is to be told now."""
        rest, self.told = self.text[self.told :], len(self.text)
        return rest


class Transcripts:
    """Of the items that words may still come for: the last one and the one before, at most."""

    def __init__(self) -> None:
        self._open: list[Transcript] = []

    def begin(self, item_id: str, start_ms: int, now: float) -> list[Transcript]:
        """The user begins an item. Returns those that are complete because of it."""
        done, self._open = self._open[:-1], self._open[-1:]
        self._open.append(Transcript(item_id, start_ms, changed_at=now))
        return done

    def end(self, item_id: str, end_ms: int, now: float) -> Transcript | None:
        """An item is over, and the client knows it."""
        for each in self._open:
            if each.item_id == item_id:
                each.end_ms, each.changed_at = end_ms, now
                return each
        return None

    def word(self, text: str, start_ms: int, now: float) -> Transcript | None:
        """A word; returns what it belongs to, or None if there is no such item."""
        if not self._open:
            return None
        last = self._open[-1]
        into = last if start_ms >= last.start_ms - _EARLY_MS or len(self._open) == 1 else self._open[0]
        into.text += f" {text}" if into.text else text
        into.changed_at = now
        return into

    def complete(self, now: float) -> list[Transcript]:
        """Those for which no more words come, each once."""
        done = [each for each in self._open if each.over and now - each.changed_at >= QUIET_S]
        self._open = [each for each in self._open if each not in done]
        return done
