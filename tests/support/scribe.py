"""A model that transcribes what can be checked: frames that carry numbers come back as words."""

from __future__ import annotations

import threading

import numpy as np

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, RowOutput, ServiceKind, TokenMark

DELAY_FRAMES, PREFIX_FRAMES = 2, 1
BREAK = 999
"""A frame with this number breaks the model."""


class Scribe:
    """Writes the number of each frame that has one, :data:`DELAY_FRAMES` late; 0 is a pause.

    ``heads``: of pauses, which are sure of one while nothing is written. ``gate``: closed, it does not step.
    """

    def __init__(self, slots: int, heads: int = 0, gate: threading.Event | None = None) -> None:
        delay_s, prefix_s = DELAY_FRAMES * 0.08, PREFIX_FRAMES * 0.08
        self.info = ModelInfo("scribe", ServiceKind.TRANSCRIBE, slots, "cpu", False, True, delay_s, prefix_s, heads)
        self.most_rows = 0
        self._gate = gate
        self._heard: list[list[int]] = [[] for _ in range(slots)]

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        for row in np.flatnonzero(rows):
            self._heard[row] = []

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        if self._gate is not None:
            assert self._gate.wait(30)
        self.most_rows = max(self.most_rows, int(active.sum()))
        return [self._row(row, pcm[row]) if active[row] else None for row in range(self.info.slots)]

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        pass

    def _row(self, row: int, pcm: FloatArray) -> RowOutput:
        heard = self._heard[row]
        heard.append(round(float(pcm[0]) * 1000))
        if heard[-1] == BREAK:
            raise RuntimeError("broken")
        said = heard[-1 - DELAY_FRAMES] if len(heard) > DELAY_FRAMES else 0
        pauses = (0.1 if said else 0.9,) * self.info.pause_heads
        if said:
            return RowOutput(text=f" {said}", mark=TokenMark.TEXT, pauses=pauses)
        return RowOutput(mark=TokenMark.PADDING, pauses=pauses)


def numbered(*numbers: int) -> FloatArray:
    """A frame for each."""
    frames = np.zeros((len(numbers), FRAME_SAMPLES), dtype=np.float32)
    frames[:, 0] = np.array(numbers) / 1000
    return frames.reshape(-1)
