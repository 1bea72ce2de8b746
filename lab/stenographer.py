"""A model that transcribes tones: writes the pitch of each, a boundary before it, so late as a real one; says how
likely a pause is, where it has heads."""

from __future__ import annotations

from collections import deque

import numpy as np

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ
from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, RowOutput, ServiceKind, TokenMark

DELAY_FRAMES = 6
DELAY_S = DELAY_FRAMES * 0.08
_LOUD = 0.01
_HEADS_FRAMES = (6, 12, 25, 37)
"""Frames of silence after which each head says that there is a pause."""


class _Row:
    def __init__(self) -> None:
        self.heard: deque[int] = deque([0] * DELAY_FRAMES)
        self.speaking = False
        self.wrote = 0
        self.quiet = 0


class Stenographer:
    """``slots`` rows. Pitches are told to the nearest 100 Hz."""

    def __init__(self, slots: int, heads: bool = True) -> None:
        pause_heads = len(_HEADS_FRAMES) if heads else 0
        self.info = ModelInfo(
            "stenographer", ServiceKind.TRANSCRIBE, slots, "cpu", False, True, DELAY_S, 0.0, pause_heads
        )
        self._rows = [_Row() for _ in range(slots)]

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        for row in np.flatnonzero(rows):
            self._rows[row] = _Row()

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        return [self._step(self._rows[n], pcm[n]) if active[n] else None for n in range(self.info.slots)]

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        pass

    def _step(self, row: _Row, pcm: FloatArray) -> RowOutput:
        row.heard.append(_pitch(pcm))
        hz = row.heard.popleft()
        row.quiet = 0 if hz else row.quiet + 1
        pauses = tuple(0.9 if row.quiet >= limit else 0.1 for limit in _HEADS_FRAMES[: self.info.pause_heads])
        if not hz:
            row.speaking = False
            return RowOutput(mark=TokenMark.PADDING, pauses=pauses)
        if not row.speaking:
            row.speaking, row.wrote = True, 0
            return RowOutput(mark=TokenMark.BOUNDARY, pauses=pauses)
        row.wrote += 1
        if row.wrote == 1:
            return RowOutput(text=f" {hz}", mark=TokenMark.TEXT, pauses=pauses)
        # The word lasts as long as the tone: pieces of nothing.
        return RowOutput(mark=TokenMark.TEXT, pauses=pauses)


def _pitch(pcm: FloatArray) -> int:
    """0 in silence."""
    if float(np.abs(pcm).mean()) < _LOUD:
        return 0
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(FRAME_SAMPLES)))
    return round(int(spectrum.argmax()) * MODEL_RATE_HZ / FRAME_SAMPLES / 100) * 100
