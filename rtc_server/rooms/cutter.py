"""Cuts what one speaker says into utterances: at pauses, and at gaps between words where no pause comes. Pure.

Times are those of the microphone's audio, in milliseconds. Knows nothing of rooms and models.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from rtc_server.protocols.events import Word

LONG_MS: Final = 6_000
"""Speech without a pause is cut at a gap between two words from here on."""
LONGEST_MS: Final = 15_000
_GAP_MS: Final = 200
_LATE_MS: Final = 160
"""Words come by so much later than their model's delay: two frames on the way."""
_SLACK_MS: Final = 240
"""Between what a detector takes for the end of speech and where the model puts the beginning of its last word."""
_STRETCHES: Final = 8
_QUIET_MS: Final = 800
"""Without a new word, where no detector tells of pauses."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An utterance; ``text`` is empty where the sound alone is cut."""

    text: str
    start_ms: int
    end_ms: int


class Cutter:
    """One speaker's. ``delay_ms``: by which words come after they were said; None: no words come, and the sound is cut
    by the detector alone. ``detects``: there is a detector, and words are words only where it hears speech: models
    write some in noise and in others' talk far away."""

    def __init__(self, delay_ms: float | None, detects: bool = True) -> None:
        self._delay_ms = delay_ms
        self._detects = detects
        self._stretches: deque[tuple[int, int]] = deque(maxlen=_STRETCHES)
        """Of speech, which have ended."""
        self._words: list[Word] = []
        self._start_ms: int | None = None
        """Of the speech that goes on, where the detector tells."""
        self._ends: list[tuple[int, int]] = []
        """Stretches of speech whose last words may still be under way."""
        self._complete_ms = 0.0
        """Until there, no word is under way: so it was told."""

    @property
    def speaking(self) -> bool:
        return self._start_ms is not None

    def started(self, at_ms: int) -> None:
        """The detector hears speech."""
        self._start_ms = at_ms

    def ended(self, at_ms: int) -> None:
        """The detector hears a pause."""
        stretch = (at_ms if self._start_ms is None else self._start_ms, at_ms)
        self._ends.append(stretch)
        self._stretches.append(stretch)
        self._start_ms = None

    def complete(self, until_ms: int) -> None:
        """Every word that was said until then has come."""
        self._complete_ms = until_ms

    def word(self, word: Word) -> None:
        if not self._detects or self._is_speech(word):
            self._words.append(word)

    def _is_speech(self, word: Word) -> bool:
        if self._start_ms is not None and word.end_ms >= self._start_ms - _SLACK_MS:
            return True
        return any(
            start - _SLACK_MS <= word.end_ms and word.start_ms <= end + _SLACK_MS for start, end in self._stretches
        )

    def heard(self, at_ms: int) -> list[Cut]:
        """The microphone was heard up to ``at_ms``: what is an utterance now."""
        return self._sounds(at_ms) if self._delay_ms is None else self._texts(at_ms, self._delay_ms)

    def finish(self) -> list[Cut]:
        """The speaker has left, or goes on in another language: what was said is an utterance."""
        words, self._words = self._words, []
        self._ends.clear()
        self._start_ms = None
        return _cut(words)

    def _sounds(self, at_ms: int) -> list[Cut]:
        ends, self._ends = self._ends, []
        if self._start_ms is not None and at_ms - self._start_ms >= LONGEST_MS:
            ends.append((self._start_ms, at_ms))
            self._start_ms = at_ms
        return [Cut("", start, end) for start, end in ends]

    def _texts(self, at_ms: int, delay_ms: float) -> list[Cut]:
        cuts: list[Cut] = []
        known_ms = max(at_ms - delay_ms - _LATE_MS, self._complete_ms)
        while self._ends and self._ends[0][1] <= known_ms:
            end_ms = self._ends.pop(0)[1]
            count = sum(word.start_ms <= end_ms + _SLACK_MS for word in self._words)
            cuts += self._take(count)
        if self._words and not self._ends:
            first, last = self._words[0], self._words[-1]
            if not self.speaking and last.end_ms + _QUIET_MS <= known_ms:
                cuts += self._take(len(self._words))
            elif last.end_ms - first.start_ms >= LONG_MS:
                cuts += self._take(self._gap(last.end_ms - first.start_ms >= LONGEST_MS))
        return cuts

    def _gap(self, must: bool) -> int:
        """How many words come before the last gap that is one; where there ``must`` be one, before the longest."""
        gaps = [after.start_ms - word.end_ms for word, after in zip(self._words, self._words[1:], strict=False)]
        wide = [at for at, gap in enumerate(gaps, 1) if gap >= _GAP_MS]
        if wide:
            return wide[-1]
        return 1 + gaps.index(max(gaps)) if must and gaps else 0

    def _take(self, count: int) -> list[Cut]:
        words, self._words = self._words[:count], self._words[count:]
        return _cut(words)


def _cut(words: list[Word]) -> list[Cut]:
    if not words:
        return []
    return [Cut(" ".join(word.text for word in words), words[0].start_ms, words[-1].end_ms)]
