"""Models with behaviour, for tests of the engine. Importable from a child process: see the factories below."""

from __future__ import annotations

import dataclasses
import functools
import gc
import os
import signal
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtc_server.engine.model import BoolArray, FloatArray, MemoryUse, ModelInfo, PagesUse, RowOutput, ServiceKind
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.page_table import PageTable

MAGIC = 0.875
"""A first sample that tells a :class:`CountingModel` with a fault to show it. Exact in float32."""


class CountingModel:
    """Each row counts its own frames since it was wiped, and says so.

    Audio: its input, but the first sample, which is the count / 1000. Text: the count. It keeps what it was
    given, for tests that run in the same process.
    """

    def __init__(self, slots: int) -> None:
        self.info = ModelInfo("counting", ServiceKind.DIALOGUE, slots, "cpu", speaks=True, writes=True)
        self.counts = [0] * slots
        self.wipes: list[list[int]] = []
        self.steps: list[list[int]] = []
        self.heard: list[FloatArray] = []
        self.warm = self.closed = False
        self.threads: set[str] = set()

    def warm_up(self) -> None:
        self.warm = True

    def reset(self, rows: BoolArray) -> None:
        indexes: list[int] = np.flatnonzero(rows).tolist()
        self.wipes.append(indexes)
        for row in indexes:
            self.counts[row] = 0

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        self.threads.add(threading.current_thread().name)
        self.heard.append(pcm.copy())
        self.steps.append(np.flatnonzero(active).tolist())
        return [self._row(row, pcm[row]) if active[row] else None for row in range(self.info.slots)]

    def memory(self) -> MemoryUse:
        return MemoryUse()

    def close(self) -> None:
        self.closed = True

    def _row(self, row: int, pcm: FloatArray) -> RowOutput:
        self.counts[row] += 1
        out = pcm.copy()
        out[0] = self.counts[row] / 1000
        return RowOutput(pcm=out, text=f" {self.counts[row]}", pauses=(0.5, 0.25))


class MovingModel(CountingModel):
    """Counts, and adds up what each row has heard: its audio's second sample. A frame that is missing shows.
    A row's state is of ``padding`` bytes more than that takes. ``drift``: it adds up wrongly by so much a frame."""

    def __init__(self, slots: int, row_format: str = "counting", padding: int = 100_000, drift: float = 0.0) -> None:
        super().__init__(slots)
        self.info = dataclasses.replace(self.info, row_format=row_format)
        self.sums = [0.0] * slots
        self._padding = padding
        self._drift = drift

    def reset(self, rows: BoolArray) -> None:
        super().reset(rows)
        for row in np.flatnonzero(rows).tolist():
            self.sums[row] = 0.0

    def export_row(self, row: int) -> BytesOfRow:
        state = struct.pack("<qd", self.counts[row], self.sums[row])
        return BytesOfRow(state + padding_of(self._padding))

    def import_row(self, row: int) -> FilledRow:
        return FilledRow(16 + self._padding, functools.partial(self._fill, row))

    def _fill(self, row: int, state: bytes) -> None:
        if state[16:] != padding_of(self._padding):
            raise ValueError("its padding is another")
        self.counts[row], self.sums[row] = struct.unpack("<qd", state[:16])

    def _row(self, row: int, pcm: FloatArray) -> RowOutput:
        self.sums[row] = (self.sums[row] + float(pcm[0]) + self._drift) % 1.0
        made = super()._row(row, pcm)
        assert made.pcm is not None
        made.pcm[1] = self.sums[row]
        return made


class PagedModel(MovingModel):
    """Has its rows share ``pages``, of which each takes one with each frame, and ``most`` in all. So many are also kept
    for a newcomer."""

    def __init__(self, slots: int, pages: int, most: int) -> None:
        super().__init__(slots)
        self.table = PageTable(slots, most, pages, page_frames=1)

    def reset(self, rows: BoolArray) -> None:
        super().reset(rows)
        for row in np.flatnonzero(rows).tolist():
            self.table.release(row)

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        self.table.advance(active, np.array(self.counts))
        return super().step(pcm, active)

    def pages_use(self, used: BoolArray) -> PagesUse | None:
        return PagesUse(self.table.count, *self.table.use(used))


def padding_of(size: int) -> bytes:
    """Bytes that tell where they stand."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@dataclass(frozen=True, slots=True)
class BytesOfRow:
    state: bytes

    @property
    def size(self) -> int:
        return len(self.state)

    def read(self, offset: int, size: int) -> bytes:
        return self.state[offset : offset + size]


class FilledRow:
    """Gathers ``size`` bytes for ``then``."""

    def __init__(self, size: int, then: Callable[[bytes], None]) -> None:
        self._size = size
        self._then = then
        self._state = bytearray()

    def write(self, data: bytes) -> bool:
        self._state += data
        if len(self._state) > self._size:
            raise ValueError("more than a row")
        if len(self._state) == self._size:
            self._then(bytes(self._state))
        return len(self._state) == self._size


class FaultyModel(CountingModel):
    """Raises, or hangs for ever, when a row hears :data:`MAGIC` first."""

    def __init__(self, slots: int, fault: str = "raise") -> None:
        super().__init__(slots)
        self._fault = fault

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        if (pcm[active, 0] == MAGIC).any():
            if self._fault == "hang":
                threading.Event().wait()
            raise RuntimeError("the device is gone")
        return super().step(pcm, active)


class GatedModel(CountingModel):
    """Announces each step in :attr:`entered`, then waits for :attr:`gate`: a model as slow as the test wants."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def wait_entered(self) -> None:
        """Blocks until a step has begun that nobody has waited for yet."""
        assert self.entered.acquire(timeout=20)

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        self.entered.release()
        assert self.gate.acquire(timeout=30)
        return super().step(pcm, active)


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """``fault``: see :class:`FaultyModel`. ``marker``: see :func:`loadable_once`."""

    slots: int
    fault: str = "raise"
    marker: str = ""


def counting(options: FakeOptions) -> CountingModel:
    return CountingModel(options.slots)


def faulty(options: FakeOptions) -> FaultyModel:
    return FaultyModel(options.slots, options.fault)


def unloadable(options: FakeOptions) -> CountingModel:
    raise ModelLoadError("There is no such model.", "Check the name.")


def killed(options: FakeOptions) -> CountingModel:
    """What becomes of a process that loads more than the system has memory for."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it lives")


def loadable_once(options: FakeOptions) -> CountingModel:
    """Loads if the file ``options.marker`` is not there yet, and puts it there: a disk that goes away."""
    marker = Path(options.marker)
    if marker.exists():
        raise ModelLoadError("The disk is gone.")
    marker.write_text(str(os.getpid()))
    return FaultyModel(options.slots)


class DyingModel(CountingModel):
    """Counts, and fails when its first row has come to ``at``."""

    def __init__(self, slots: int, at: int = 10) -> None:
        super().__init__(slots)
        self._at = at

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        if self.counts[0] >= self._at:
            raise RuntimeError
        return super().step(pcm, active)


class Compiling(CountingModel):
    """Makes something in its warm-up that stays, and says whether the garbage collector looks through it."""

    def warm_up(self) -> None:
        super().warm_up()
        self.compiled = [object()]

    def _row(self, row: int, pcm: FloatArray) -> RowOutput:
        looked_through = any(each is self.compiled for each in gc.get_objects())
        return RowOutput(text="looked through" if looked_through else "left alone")


def compiling(options: FakeOptions) -> Compiling:
    return Compiling(options.slots)
