"""A model that transcribes what can be checked: audio whose frames are numbered, so many frames late."""

from __future__ import annotations

import time

import numpy as np

from rtc_server import audio
from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, RowOutput, ServiceKind, TokenMark

DELAY_FRAMES, PREFIX_FRAMES = 3, 2
BREAK = 0.5
"""A first sample that breaks the model."""
HIGHEST = 499
"""The last number that a frame can have; after it comes :data:`BREAK`."""


class Parrot:
    """Writes a word for each frame: its first sample times a thousand, :data:`DELAY_FRAMES` late; for 0 a boundary.

    ``heads``: of pauses, which it is as sure of as the number of the head tells. ``step_s``: how slow it is.
    """

    def __init__(self, slots: int = 1, heads: int = 0, step_s: float = 0.0) -> None:
        delay_s, prefix_s = DELAY_FRAMES * 0.08, PREFIX_FRAMES * 0.08
        self.info = ModelInfo("parrot", ServiceKind.TRANSCRIBE, slots, "cpu", False, True, delay_s, prefix_s, heads)
        self._step_s = step_s
        self._heard: list[list[int]] = [[] for _ in range(slots)]

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        for row in np.flatnonzero(rows):
            self._heard[row] = []

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        time.sleep(self._step_s)
        return [self._row(row, pcm[row]) if active[row] else None for row in range(self.info.slots)]

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        pass

    def _row(self, row: int, pcm: FloatArray) -> RowOutput:
        if pcm[0] == BREAK:
            raise RuntimeError("broken")
        assert np.isfinite(pcm).all()
        heard = self._heard[row]
        heard.append(round(float(pcm[0]) * 1000))
        said = heard[-1 - DELAY_FRAMES] if len(heard) > DELAY_FRAMES else 0
        pauses = tuple((1 + head) / 8 for head in range(self.info.pause_heads))
        if said:
            return RowOutput(text=f" {said}", mark=TokenMark.TEXT, pauses=pauses)
        return RowOutput(mark=TokenMark.BOUNDARY, pauses=pauses)


def numbered(count: int, first: int = 1) -> FloatArray:
    """So many frames that a :class:`Parrot` reads as their numbers."""
    assert first + count - 1 <= HIGHEST
    frames = np.zeros((count, audio.FRAME_SAMPLES), dtype=np.float32)
    frames[:, 0] = np.arange(first, first + count) / 1000
    return frames.reshape(-1)
