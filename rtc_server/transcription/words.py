"""Turns a model's text tokens into words with times. Pure: frames in, words out; no clock.

The rule is that of Kyutai's own tools: a boundary token opens a word, its pieces follow frame by frame, padding or the
next boundary closes it; the model writes ``delay_s`` after it has heard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from rtc_server.audio import FRAME_MS
from rtc_server.engine.model import TokenMark

_FRAME_S: Final = FRAME_MS / 1000
_INSERTED: Final = 8
"""Stretches of silence that are remembered one by one: no word is longer than the last of them are old."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word is complete. Times are in the stream's audio, in seconds. ``end_s`` is when its last piece was heard: the
    least that it can be; :class:`WordEnd` tells more where the model does."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class WordEnd:
    """The model has said where the last word ended: where the next one begins."""

    stop_s: float


class WordAssembler:
    """One stream. ``delay_s``: of the model; ``prefix_s``: silence that was put before the audio."""

    def __init__(self, delay_s: float = 0.0, prefix_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._prefix_s = prefix_s
        """And what was inserted long ago."""
        self._inserted: deque[tuple[float, float]] = deque()
        """Where in what the model has heard, and how much, in seconds."""
        self._pieces = ""
        self._start_frame = 0
        self._last_frame = 0
        self._unended = False

    def time_s(self, frame: int) -> float:
        """When what the model writes after ``frame`` frames was said; 0 at the earliest."""
        heard_s = frame * _FRAME_S - self._delay_s
        inserted_s = sum(min(max(0.0, heard_s - at_s), length_s) for at_s, length_s in self._inserted)
        return max(0.0, heard_s - inserted_s - self._prefix_s)

    def insert(self, frame: int, frames: int) -> None:
        """After ``frame`` frames the model hears so many of silence, which are not of the audio."""
        if len(self._inserted) == _INSERTED:
            self._prefix_s += self._inserted.popleft()[1]
        self._inserted.append((frame * _FRAME_S, frames * _FRAME_S))

    def push(self, frame: int, mark: TokenMark, text: str) -> list[Word | WordEnd]:
        """``frame``: how many the model has heard, this one included."""
        match mark:
            case TokenMark.TEXT:
                return self._write(frame, text)
            case TokenMark.PADDING:
                return self._close()
            case TokenMark.BOUNDARY:
                made = self._close()
                if self._unended:
                    self._unended = False
                    made.append(WordEnd(self.time_s(frame)))
                return made
            case _:
                return []

    def finish(self) -> list[Word | WordEnd]:
        """Nothing more comes: the word that was being written, if there is one."""
        return self._close()

    def _write(self, frame: int, text: str) -> list[Word | WordEnd]:
        # Words that are said fast come without a boundary between them; a piece that begins with a space tells.
        made = self._close() if text.startswith(" ") and self._pieces.strip() else []
        if not self._pieces:
            # The boundary is the start, and so is the frame after it: the same moment.
            self._start_frame = frame - 1
        self._pieces += text
        self._last_frame = frame
        return made

    def _close(self) -> list[Word | WordEnd]:
        text, self._pieces = self._pieces.strip(), ""
        if not text:
            return []
        self._unended = True
        return [Word(text, self.time_s(self._start_frame), self.time_s(self._last_frame))]
