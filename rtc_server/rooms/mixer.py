"""What one member of a room hears: the others as they are, or faintly under their translations. Pure.

Frames of 80 ms in and out, at the pace of the listener's own microphone. Every queue is bounded: clocks differ.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from rtc_server import audio
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, FloatArray

FULL: Final = 1.0
UNDER: Final = 0.25
DUCKED: Final = 0.12
_MOST_FRAMES: Final = 3
"""Of a speaker's voice that wait for the listener, after which the oldest is lost."""
_DOWN: Final = FRAME_MS / 300
_UP: Final = FRAME_MS / 1000
"""By how much a level changes in a frame: from nothing to full in 0.3 s down, 1 s up."""
_MOST_OF_A_MODEL: Final = 6
"""Frames of a voice that translates while the speaker speaks: they come less evenly, over another process."""
_QUIET_DBFS: Final = -50.0
"""Below this, such a voice says nothing."""
_HOLD_FRAMES: Final = 8
"""For which the speaker stays faint after it: it draws breath."""
_MOST_WAITING: Final = 3
_MOST_BEHIND_S: Final = 12.0
_FADE: Final = audio.ms_to_samples(5)
_KNEE: Final = 0.7

Played = tuple[str, Literal["started", "ended", "skipped"]]
"""A message, and what has become of its translation."""


@dataclass(slots=True, eq=False)
class _Voice:
    """A speaker, as this listener hears them."""

    frames: deque[FloatArray]
    gain: float | None = None


@dataclass(slots=True, eq=False)
class _Interpreted:
    """A model's voice that translates a speaker while they speak; ``held``: for how many frames more it counts as
    heard."""

    frames: deque[FloatArray]
    held: int = 0


class Mixer:
    """One listener's."""

    def __init__(self) -> None:
        self._interpreted: dict[str, _Interpreted] = {}
        self._voices: dict[str, _Voice] = {}
        self._waiting: deque[tuple[str, str, FloatArray]] = deque()
        self._playing: tuple[str, str, FloatArray] | None = None
        self._at = 0

    @property
    def behind_s(self) -> float:
        """How long what waits will take."""
        left = 0 if self._playing is None else self._playing[2].size - self._at
        return (left + sum(pcm.size for _, _, pcm in self._waiting)) / audio.MODEL_RATE_HZ

    def hear(self, speaker: str, pcm: FloatArray) -> None:
        """A frame of another member's microphone."""
        voice = self._voices.setdefault(speaker, _Voice(deque(maxlen=_MOST_FRAMES)))
        voice.frames.append(pcm)

    def interpret(self, speaker: str, pcm: FloatArray) -> None:
        """A frame of the voice that translates another member while they speak, finite and within ±1."""
        voice = self._interpreted.setdefault(speaker, _Interpreted(deque(maxlen=_MOST_OF_A_MODEL)))
        voice.frames.append(pcm)

    def play(self, message: str, speaker: str, pcm: FloatArray) -> list[Played]:
        """Queue a translation of what ``speaker`` said, mono float32 at 24 kHz. Returns those that are skipped for it:
        the listener is too far behind."""
        self._waiting.append((message, speaker, pcm))
        skipped: list[Played] = []
        while len(self._waiting) > 1 and (len(self._waiting) > _MOST_WAITING or self.behind_s > _MOST_BEHIND_S):
            skipped.append((self._waiting.popleft()[0], "skipped"))
        return skipped

    def forget(self, speaker: str) -> None:
        """A speaker has left."""
        self._voices.pop(speaker, None)
        self._interpreted.pop(speaker, None)

    def end_interpreting(self, speaker: str) -> None:
        """A speaker is not translated while they speak any more."""
        self._interpreted.pop(speaker, None)

    def clear(self) -> list[Played]:
        """Play nothing of what waits."""
        gone: list[Played] = [(message, "skipped") for message, _, _ in self._waiting]
        if self._playing is not None:
            gone.insert(0, (self._playing[0], "ended"))
        self._waiting.clear()
        self._interpreted.clear()
        self._playing = None
        self._at = 0
        return gone

    def pull(self, gains: dict[str, float]) -> tuple[FloatArray, list[Played]]:
        """The next 80 ms. ``gains``: of the speakers' own voices, :data:`FULL`, :data:`UNDER` or 0; the voice of one
        whose translation is heard is :data:`DUCKED` by itself."""
        mixed, played = self._translation()
        for interpreted in self._interpreted.values():
            interpreted.held = max(0, interpreted.held - 1)
            if interpreted.frames:
                frame = interpreted.frames.popleft()
                mixed = mixed + frame
                if audio.level_dbfs(frame) > _QUIET_DBFS:
                    interpreted.held = _HOLD_FRAMES
        translated = {speaker for speaker, voice in self._interpreted.items() if voice.held}
        if self._playing is not None:
            translated.add(self._playing[1])
        for speaker, voice in self._voices.items():
            target = gains.get(speaker, 0.0)
            if target == UNDER and speaker in translated:
                target = DUCKED
            before = target if voice.gain is None else voice.gain
            voice.gain = after = min(target, before + _UP) if target > before else max(target, before - _DOWN)
            if voice.frames:
                frame = voice.frames.popleft()
                if before or after:
                    mixed = mixed + frame * np.linspace(before, after, FRAME_SAMPLES, dtype=np.float32)
        return _limited(mixed), played

    def _translation(self) -> tuple[FloatArray, list[Played]]:
        frame, filled, played = audio.silence(FRAME_SAMPLES), 0, list[Played]()
        while filled < FRAME_SAMPLES:
            if self._playing is None:
                if not self._waiting:
                    break
                self._playing, self._at = self._waiting.popleft(), 0
                played.append((self._playing[0], "started"))
            message, _, pcm = self._playing
            part = pcm[self._at : self._at + FRAME_SAMPLES - filled]
            frame[filled : filled + part.size] = part
            filled += part.size
            self._at += part.size
            if self._at >= pcm.size:
                played.append((message, "ended"))
                self._playing = None
        return frame, played


def faded(pcm: FloatArray) -> FloatArray:
    """A copy that begins and ends without a click."""
    made = audio.sanitise(pcm)
    edge = min(_FADE, made.size // 2)
    ramp = np.linspace(0.0, 1.0, edge, dtype=np.float32)
    made[:edge] *= ramp
    made[made.size - edge :] *= ramp[::-1]
    return made


def _limited(pcm: FloatArray) -> FloatArray:
    """Within ±1: several voices at once are bent softly above the knee, and nothing else is changed."""
    size = np.abs(pcm)
    if not size.size or size.max() <= _KNEE:
        return pcm
    bent = _KNEE + (1 - _KNEE) * np.tanh((size - _KNEE) / (1 - _KNEE))
    return np.where(size > _KNEE, np.sign(pcm) * bent, pcm).astype(np.float32, copy=False)
