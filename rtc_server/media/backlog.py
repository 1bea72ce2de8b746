"""Buffers audio for a model that is slower than real time. Pure; knows nothing of sockets or models."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import numpy as np

from rtc_server.audio import MODEL_RATE_HZ, FloatArray

_BLOCK_SAMPLES: Final = MODEL_RATE_HZ


class Backlog:
    """Mono audio at 24 kHz in the order in which it came: four bytes a sample and little more, in however many pieces.

    How much it may hold is its owner's affair.
    """

    def __init__(self) -> None:
        self._full: deque[FloatArray] = deque()
        self._last = np.empty(_BLOCK_SAMPLES, dtype=np.float32)
        self._filled = 0
        self._waits = asyncio.Event()

    @property
    def samples(self) -> int:
        return len(self._full) * _BLOCK_SAMPLES + self._filled

    def push(self, pcm: FloatArray) -> None:
        start = 0
        while start < pcm.size:
            piece = pcm[start : start + _BLOCK_SAMPLES - self._filled]
            self._last[self._filled : self._filled + piece.size] = piece
            self._filled += piece.size
            start += piece.size
            if self._filled == _BLOCK_SAMPLES:
                self._full.append(self._last)
                self._last, self._filled = np.empty(_BLOCK_SAMPLES, dtype=np.float32), 0
        if pcm.size:
            self._waits.set()

    async def pop(self) -> FloatArray:
        """The oldest second, or what there is of it; waits while there is nothing. Safe to cancel."""
        while not self.samples:
            self._waits.clear()
            await self._waits.wait()
        if self._full:
            return self._full.popleft()
        block, self._filled = self._last[: self._filled].copy(), 0
        return block
