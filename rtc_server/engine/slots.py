"""The slot table: which stream owns which row of the batch, which frames wait, and what the next step computes.

Pure: no clock, no model, no thread of its own. Only the step loop's thread touches it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import BoolArray, FloatArray

QUEUE_FRAMES: Final = 4
"""Input frames a slot may have waiting: 320 ms. More would be delay that never goes away."""


@dataclass(slots=True)
class _Slot:
    generation: int = 0
    used: bool = False
    queue: deque[tuple[int, FloatArray]] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: ``pcm`` float32 [slots, 1920], ``active`` bool [slots], and for each active row its
    (slot, generation, seq)."""

    pcm: FloatArray
    active: BoolArray
    rows: tuple[tuple[int, int, int], ...]


class SlotTable:
    """``slots`` rows, handed out as (slot, generation)."""

    def __init__(self, slots: int, queue_frames: int = QUEUE_FRAMES) -> None:
        self._slots = [_Slot() for _ in range(slots)]
        self._free = deque(range(slots))
        self._queue_frames = queue_frames
        self._to_wipe: BoolArray = np.zeros(slots, dtype=np.bool_)
        self._waiting = 0
        self._dropped = 0

    @property
    def used(self) -> int:
        return len(self._slots) - len(self._free)

    @property
    def has_frames(self) -> bool:
        return self._waiting > 0

    def open(self) -> tuple[int, int] | None:
        """A free slot and its generation, or None. The slot freed longest ago comes first."""
        if not self._free:
            return None
        index = self._free.popleft()
        slot = self._slots[index]
        slot.used = True
        slot.generation += 1
        return index, slot.generation

    def reset(self, index: int, generation: int) -> bool:
        """Forget the slot's conversation, one generation later. False if the lease is stale."""
        slot = self._leased(index, generation)
        if slot is None:
            return False
        self._forget(index, slot)
        slot.generation += 1
        return True

    def close(self, index: int, generation: int) -> bool:
        """Take the slot back; it is wiped before another session has it. False if the lease is stale."""
        slot = self._leased(index, generation)
        if slot is None:
            return False
        self._forget(index, slot)
        slot.used = False
        self._free.append(index)
        return True

    def push(self, index: int, generation: int, seq: int, pcm: FloatArray) -> bool:
        """Queue a frame of shape [1920]; the oldest is dropped when the queue is full. False if stale."""
        slot = self._leased(index, generation)
        if slot is None:
            return False
        if len(slot.queue) >= self._queue_frames:
            slot.queue.popleft()
            self._waiting -= 1
            self._dropped += 1
        slot.queue.append((seq, pcm))
        self._waiting += 1
        return True

    def take_wipes(self) -> BoolArray | None:
        """The rows to wipe before the next step, as a mask, once; None if there are none."""
        if not self._to_wipe.any():
            return None
        mask = self._to_wipe
        self._to_wipe = np.zeros_like(mask)
        return mask

    def take_dropped(self) -> int:
        dropped, self._dropped = self._dropped, 0
        return dropped

    def plan(self) -> StepPlan | None:
        """Take the oldest frame of every slot that has one. None if no slot has."""
        if not self._waiting:
            return None
        pcm = np.zeros((len(self._slots), FRAME_SAMPLES), dtype=np.float32)
        active = np.zeros(len(self._slots), dtype=np.bool_)
        rows = []
        for index, slot in enumerate(self._slots):
            if slot.queue:
                seq, pcm[index] = slot.queue.popleft()
                active[index] = True
                rows.append((index, slot.generation, seq))
        self._waiting -= len(rows)
        return StepPlan(pcm, active, tuple(rows))

    def _leased(self, index: int, generation: int) -> _Slot | None:
        if not 0 <= index < len(self._slots):
            return None
        slot = self._slots[index]
        return slot if slot.used and slot.generation == generation else None

    def _forget(self, index: int, slot: _Slot) -> None:
        self._waiting -= len(slot.queue)
        slot.queue.clear()
        self._to_wipe[index] = True
