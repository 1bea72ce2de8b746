"""A model that returns what it hears, one frame later. Needs no torch.

It is the server's sound check: the whole media path and nothing behind it.
"""

from __future__ import annotations

from rtc_server.engine.factory import SlotOptions
from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, RowOutput, ServiceKind


class StatelessRow:
    """Reads and writes the state of a row that has none."""

    size = 0

    def read(self, offset: int, size: int) -> bytes:
        return b""

    def write(self, data: bytes) -> bool:
        if data:
            raise ValueError("an echo has no state")
        return True


class EchoModel:
    """``slots`` independent echoes."""

    def __init__(self, slots: int) -> None:
        self._info = ModelInfo("echo", ServiceKind.ECHO, slots, "cpu", speaks=True, writes=False, row_format="echo")

    @property
    def info(self) -> ModelInfo:
        return self._info

    def warm_up(self) -> None:
        pass

    def reset(self, rows: BoolArray) -> None:
        """Nothing to wipe: an echo keeps no state between steps."""

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        return [RowOutput(pcm=pcm[i]) if on else None for i, on in enumerate(active)]

    def export_row(self, row: int) -> StatelessRow:
        return StatelessRow()

    def import_row(self, row: int) -> StatelessRow:
        return StatelessRow()

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        pass


def load(options: SlotOptions) -> EchoModel:
    return EchoModel(options.slots)
