"""The slot table: which owner has which row of the batch, which frames wait, and what the next step computes.

Pure: no clock, no model, no thread of its own. Only the step loop's thread touches it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rtc_server.audio import FRAME_SAMPLES
from rtc_server.engine.model import BoolArray, FloatArray
from rtc_server.engine.owners import HOST, Owner

QUEUE_FRAMES: Final = 4
"""Input frames a slot may have waiting: 320 ms. More would be delay that never goes away."""


@dataclass(slots=True)
class _Slot:
    """``digest``: of the key by which another owner may adopt it; empty: none may. ``heard``: frames that were planned
    since it was opened or reset; ``seq``: of the last of them. ``filling``: its conversation comes from another engine,
    and is not whole."""

    generation: int = 0
    used: bool = False
    owner: Owner = HOST
    digest: bytes = b""
    memo: bytes = b""
    locked_at_s: float = 0.0
    heard: int = 0
    seq: int = 0
    filling: bool = False
    queue: deque[tuple[int, FloatArray]] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: ``pcm`` float32 [slots, 1920], ``active`` bool [slots], and for each owner of active rows their
    (slot, generation, seq)."""

    pcm: FloatArray
    active: BoolArray
    rows: dict[Owner, list[tuple[int, int, int]]]


@dataclass(frozen=True, slots=True)
class Adopted:
    """A slot that has another owner now. ``before``: the owner until then; the rest as in
    :class:`rtc_server.engine.messages.Opened`."""

    slot: int
    generation: int
    before: Owner
    heard: int
    memo: bytes
    locked_at_s: float


class SlotTable:
    """``slots`` rows, handed out as (slot, generation)."""

    def __init__(self, slots: int, queue_frames: int = QUEUE_FRAMES) -> None:
        self._slots = [_Slot() for _ in range(slots)]
        self._free = deque(range(slots))
        self._queue_frames = queue_frames
        self._to_wipe: BoolArray = np.zeros(slots, dtype=np.bool_)
        self._waiting = 0
        self._planned: FloatArray = np.zeros((slots, FRAME_SAMPLES), dtype=np.float32)
        self._dropped: Counter[Owner] = Counter()

    @property
    def used(self) -> int:
        return len(self._slots) - len(self._free)

    @property
    def used_rows(self) -> BoolArray:
        """Which slots are used, bool, shape [slots]."""
        return np.fromiter((slot.used for slot in self._slots), np.bool_, len(self._slots))

    @property
    def wipe_due(self) -> bool:
        """Whether :meth:`take_wipes` has rows."""
        return bool(self._to_wipe.any())

    @property
    def has_frames(self) -> bool:
        return self._waiting > 0

    def used_elsewhere(self, owner: Owner) -> int:
        """Slots that others have."""
        return sum(slot.used and slot.owner != owner for slot in self._slots)

    def open(self, owner: Owner = HOST, heard: int = 0, filling: bool = False) -> tuple[int, int] | None:
        """A free slot and its generation, or None. The slot freed longest ago comes first. ``filling``: it takes no
        frames until :meth:`filled`, when its conversation will have ``heard`` so many."""
        if not self._free:
            return None
        index = self._free.popleft()
        slot = self._slots[index]
        slot.used = True
        slot.owner = owner
        slot.heard = heard
        slot.seq = 0
        slot.filling = filling
        slot.generation += 1
        return index, slot.generation

    def filled(self, index: int) -> None:
        """The slot's conversation is whole."""
        self._slots[index].filling = False

    def holds(self, index: int, generation: int, owner: Owner) -> bool:
        """Whether it is the owner's."""
        return self._leased(index, generation, owner) is not None

    def is_filling(self, index: int) -> bool:
        return self._slots[index].filling

    def progress(self, index: int) -> tuple[int, int]:
        """How many frames the slot's conversation has heard, and the number of the last."""
        slot = self._slots[index]
        return slot.heard, slot.seq

    def lock(
        self,
        index: int,
        generation: int,
        digest: bytes,
        owner: Owner = HOST,
        memo: bytes = b"",
        now_s: float = 0.0,
    ) -> bool:
        """Let the slot be adopted by the key of this digest, with what ``memo`` says at ``now_s``. False if the lease
        is stale."""
        slot = self._leased(index, generation, owner)
        if slot is None:
            return False
        slot.digest, slot.memo, slot.locked_at_s = digest, memo, now_s
        return True

    def adopt(self, digest: bytes, owner: Owner) -> Adopted | None:
        """Give the slot that is locked with ``digest`` to ``owner``, one generation later, with its conversation. None
        if there is no such slot, or not any more: a key opens once. Frames of the owner so far that still wait are
        dropped."""
        found = next((index for index, slot in enumerate(self._slots) if slot.used and slot.digest == digest), None)
        if found is None or not digest:
            return None
        slot = self._slots[found]
        before, slot.owner = slot.owner, owner
        self._drop_frames(slot)
        adopted = Adopted(found, slot.generation + 1, before, slot.heard, slot.memo, slot.locked_at_s)
        slot.digest = slot.memo = b""
        slot.generation += 1
        slot.seq = 0
        return adopted

    def close_all(self, owner: Owner, locked: bool = True) -> bool:
        """Take back what an owner has. ``locked``: also what another one may adopt. Returns whether the owner has
        nothing left."""
        left = False
        for index, slot in enumerate(self._slots):
            if slot.used and slot.owner == owner:
                if locked or not slot.digest:
                    self.close(index, slot.generation, owner)
                else:
                    self._drop_frames(slot)
                    left = True
        self._dropped.pop(owner, None)
        return not left

    def reset(self, index: int, generation: int, owner: Owner = HOST) -> bool:
        """Forget the slot's conversation, one generation later. False if the lease is stale."""
        slot = self._leased(index, generation, owner)
        if slot is None:
            return False
        self._forget(index, slot)
        slot.heard = 0
        slot.filling = False
        slot.generation += 1
        return True

    def close(self, index: int, generation: int, owner: Owner = HOST) -> bool:
        """Take the slot back; it is wiped before another session has it. False if the lease is stale."""
        slot = self._leased(index, generation, owner)
        if slot is None:
            return False
        self._forget(index, slot)
        slot.used = False
        slot.digest = slot.memo = b""
        self._free.append(index)
        return True

    def push(self, index: int, generation: int, seq: int, pcm: FloatArray, owner: Owner = HOST) -> bool:
        """Queue a frame of shape [1920]; the oldest is dropped when the queue is full. False if stale."""
        slot = self._leased(index, generation, owner)
        if slot is None or slot.filling:
            return False
        if len(slot.queue) >= self._queue_frames:
            slot.queue.popleft()
            self._waiting -= 1
            self._dropped[owner] += 1
        slot.queue.append((seq, pcm))
        self._waiting += 1
        return True

    def take_wipes(self) -> BoolArray | None:
        """The rows to wipe before the next step, as a mask, once; None if there are none."""
        if not self.wipe_due:
            return None
        mask = self._to_wipe
        self._to_wipe = np.zeros_like(mask)
        return mask

    def take_dropped(self, owner: Owner = HOST) -> int:
        """Frames of an owner that were dropped since the last time."""
        return self._dropped.pop(owner, 0)

    def plan(self) -> StepPlan | None:
        """Take the oldest frame of every slot that has one. None if no slot has. Its samples are good until the next
        one: pages that are there are written sooner than new ones."""
        if not self._waiting:
            return None
        pcm = self._planned
        active = np.zeros(len(self._slots), dtype=np.bool_)
        rows: dict[Owner, list[tuple[int, int, int]]] = {}
        for index, slot in enumerate(self._slots):
            if slot.queue:
                seq, pcm[index] = slot.queue.popleft()
                active[index] = True
                slot.heard += 1
                slot.seq = seq
                rows.setdefault(slot.owner, []).append((index, slot.generation, seq))
        pcm[~active] = 0.0
        self._waiting -= int(active.sum())
        return StepPlan(pcm, active, rows)

    def _leased(self, index: int, generation: int, owner: Owner) -> _Slot | None:
        if not 0 <= index < len(self._slots):
            return None
        slot = self._slots[index]
        return slot if slot.used and slot.generation == generation and slot.owner == owner else None

    def _forget(self, index: int, slot: _Slot) -> None:
        self._drop_frames(slot)
        self._to_wipe[index] = True

    def _drop_frames(self, slot: _Slot) -> None:
        self._waiting -= len(slot.queue)
        slot.queue.clear()
