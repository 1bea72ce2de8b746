"""A model that keeps what it hears, and says nothing."""

from __future__ import annotations

import numpy as np

from rtc_server import audio
from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, RowOutput, ServiceKind


class Keeper:
    """Has one slot."""

    def __init__(self) -> None:
        self.info = ModelInfo("keeper", ServiceKind.DIALOGUE, 1, "cpu", speaks=True, writes=False)
        self._frames: list[FloatArray] = []

    @property
    def heard(self) -> FloatArray:
        """Mono, at 24 kHz, from the first frame of the conversation on."""
        return np.concatenate(self._frames) if self._frames else audio.silence(0)

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        self._frames = []

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        if not active[0]:
            return [None]
        self._frames.append(pcm[0].copy())
        return [RowOutput(pcm=audio.silence(audio.FRAME_SAMPLES))]

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        pass
