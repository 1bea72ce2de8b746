"""Rows of an engine's model that go to another engine, or come from one: the engine's part.

Owns the one copy that there is at a time of a row that leaves, and the rows that are being filled. A row that leaves
goes on here until its slot is closed: which of the two is heard, the media node decides. Only the step loop's thread
uses it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from rtc_server.engine.messages import CannotMove, Export, Exported, Fetch, Part, Put, Taken
from rtc_server.engine.model import MovableModel, RowReader, RowWriter, StreamingModel
from rtc_server.engine.owners import Owner
from rtc_server.engine.slots import SlotTable

logger = logging.getLogger(__name__)

_COPY_S: Final = 60.0
"""A copy that was made longer ago makes room for another."""


@dataclass(frozen=True, slots=True)
class _Copy:
    slot: int
    generation: int
    owner: Owner
    made_at_s: float
    reader: RowReader


@dataclass(slots=True)
class _Filling:
    generation: int
    writer: RowWriter
    written: int = 0


class RowMoves:
    """Of ``model``, whose slots are in ``table``."""

    def __init__(self, model: StreamingModel, table: SlotTable) -> None:
        self._model = model if isinstance(model, MovableModel) and model.info.row_format else None
        self._row_format = model.info.row_format
        self._table = table
        self._copy: _Copy | None = None
        self._fillings: dict[int, _Filling] = {}

    def export(self, message: Export, at_s: float, owner: Owner) -> Exported | CannotMove | None:
        """Copy a row. None if it is not the owner's. No wipe may be due."""
        slot, generation = message.slot, message.generation
        if not self._table.holds(slot, generation, owner):
            return None
        if self._model is None or self._table.is_filling(slot):
            return CannotMove(slot, generation)
        if self._is_busy(slot, at_s):
            return CannotMove(slot, generation, busy=True)
        self._copy = _Copy(slot, generation, owner, at_s, self._model.export_row(slot))
        heard, seq = self._table.progress(slot)
        return Exported(slot, generation, self._copy.reader.size, heard, seq)

    def fetch(self, message: Fetch, owner: Owner) -> Part | CannotMove:
        copy = self._copy
        if copy is None or (copy.slot, copy.generation, copy.owner) != (message.slot, message.generation, owner):
            return CannotMove(message.slot, message.generation)
        data = copy.reader.read(message.offset, message.size)
        if message.offset + len(data) >= copy.reader.size:
            self._copy = None
        return Part(message.slot, message.generation, message.offset, data)

    def begin(self, row_format: str, heard: int, owner: Owner) -> tuple[int, int] | None:
        """A free slot for a row that comes, or None if there is none, or the row is of another model. No wipe may be
        due."""
        if self._model is None or row_format != self._row_format:
            return None
        lease = self._table.open(owner, heard, filling=True)
        if lease is not None:
            slot, generation = lease
            self._fillings[slot] = _Filling(generation, self._model.import_row(slot))
        return lease

    def put(self, message: Put, owner: Owner) -> Taken | CannotMove:
        """Write into a row that comes. One that turns out to be none is given up: its slot stays empty."""
        slot, generation = message.slot, message.generation
        filling = self._fillings.get(slot)
        held = self._table.holds(slot, generation, owner) and self._table.is_filling(slot)
        if filling is None or filling.generation != generation or not held:
            return CannotMove(slot, generation)
        try:
            whole = filling.writer.write(message.data)
        except ValueError as error:
            logger.warning("slot %d: what came is no row: %s", slot, error)
            del self._fillings[slot]
            return CannotMove(slot, generation)
        filling.written += len(message.data)
        if whole:
            del self._fillings[slot]
            self._table.filled(slot)
        return Taken(slot, generation, filling.written, whole)

    def _is_busy(self, slot: int, at_s: float) -> bool:
        copy = self._copy
        if copy is None or copy.slot == slot or at_s - copy.made_at_s > _COPY_S:
            return False
        return self._table.holds(copy.slot, copy.generation, copy.owner)
