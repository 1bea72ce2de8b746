"""Finds when a speaker begins, stops and has finished, from probabilities of a pause in each frame. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rtc_server.audio import FRAME_MS

TURN_HEAD: Final = 2
"""Of the model's heads for pauses of 0.5, 1, 2 and 3 s, the one that tells the end of a turn."""
_PAUSE_HEAD: Final = 0


class SpeechKind(enum.StrEnum):
    STARTED = "speech-started"
    ENDED = "speech-ended"
    TURN_ENDED = "turn-ended"


@dataclass(frozen=True, slots=True)
class SpeechEvent:
    """``at_ms``: in the stream's audio."""

    kind: SpeechKind
    at_ms: int


class HeadTracker:
    """Follows a model that writes and says how likely a pause is (Kyutai's STT with its extra heads)."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._speaking = False
        self._in_turn = False

    def push(self, at_ms: int, pauses: Sequence[float], wrote: bool) -> list[SpeechEvent]:
        """``pauses``: one for each head, empty while the model gives none; ``wrote``: a piece of a word."""
        made = []
        if wrote:
            if not self._speaking:
                made.append(SpeechEvent(SpeechKind.STARTED, at_ms))
            self._speaking = self._in_turn = True
            return made
        if not pauses:
            return []
        if self._speaking and pauses[_PAUSE_HEAD] > self._threshold:
            self._speaking = False
            made.append(SpeechEvent(SpeechKind.ENDED, at_ms))
        turn = pauses[min(TURN_HEAD, len(pauses) - 1)] > self._threshold
        if self._in_turn and turn:
            made += self.finish(at_ms)
        return made

    def finish(self, at_ms: int) -> list[SpeechEvent]:
        """Nothing more comes: what is open ends here."""
        made = [SpeechEvent(SpeechKind.ENDED, at_ms)] if self._speaking else []
        made += [SpeechEvent(SpeechKind.TURN_ENDED, at_ms)] if self._in_turn else []
        self._speaking = self._in_turn = False
        return made


class VoiceTracker:
    """Follows a voice-activity detector: the probability of speech in each frame.

    Speech starts with two frames above ``threshold``, so that a click interrupts no model, and ends after
    ``hangover_ms`` below it; a turn ends ``turn_ms`` after the last speech.
    """

    _ONSET_FRAMES: Final = 2

    def __init__(self, threshold: float, hangover_ms: float, turn_ms: float) -> None:
        self._threshold = threshold
        self._hangover_ms = hangover_ms
        self._turn_ms = max(turn_ms, hangover_ms)
        self._speaking = False
        self._in_turn = False
        self._loud_frames = 0
        self._loud_at_ms = 0

    def push(self, at_ms: int, probability: float) -> list[SpeechEvent]:
        """``at_ms``: the end of the frame."""
        made = []
        if probability > self._threshold:
            self._loud_frames += 1
            self._loud_at_ms = at_ms
            if not self._speaking and self._loud_frames >= self._ONSET_FRAMES:
                self._speaking = self._in_turn = True
                made.append(SpeechEvent(SpeechKind.STARTED, max(0, at_ms - self._loud_frames * FRAME_MS)))
            return made
        self._loud_frames = 0
        quiet_ms = at_ms - self._loud_at_ms
        if self._speaking and quiet_ms >= self._hangover_ms:
            self._speaking = False
            made.append(SpeechEvent(SpeechKind.ENDED, self._loud_at_ms))
        if self._in_turn and not self._speaking and quiet_ms >= self._turn_ms:
            self._in_turn = False
            made.append(SpeechEvent(SpeechKind.TURN_ENDED, self._loud_at_ms))
        return made

    def finish(self, at_ms: int) -> list[SpeechEvent]:
        """Nothing more comes: what is open ends here."""
        made = [SpeechEvent(SpeechKind.ENDED, at_ms)] if self._speaking else []
        made += [SpeechEvent(SpeechKind.TURN_ENDED, at_ms)] if self._in_turn else []
        self._speaking = self._in_turn = False
        self._loud_frames = 0
        return made
