"""What a model takes of memory: its weights, a session, and all that its process has held.

Pure data, which travels between the process that holds a model and the one that measures.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtc_server.models.kyutai.options import KyutaiOptions


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a model. ``weights``: all there are. ``read``: those of them that every step reads: not the tables of
    embeddings and the codebooks, of which it takes some rows. ``session``: the streaming state of one session."""

    weights: int
    read: int
    session: int

    def needed(self, sessions: int) -> int:
        """The least memory that holds the model and so many sessions."""
        return self.weights + sessions * self.session

    def floor_s(self, sessions: int, bytes_per_s: float) -> float:
        """The least time of a step of so many sessions."""
        return (self.read + sessions * self.session) / bytes_per_s


@dataclass(frozen=True, slots=True)
class WeighedOptions:
    """Of a model that writes what it weighs, as :class:`Memory`, to the file ``report``. ``fill``: a step takes as long
    as if its longest conversation had at least so many frames. ``age``: where a process that measures says so instead
    (:class:`Age`), which may change."""

    kyutai: KyutaiOptions
    report: str
    fill: int = 0
    age: str = ""

    @property
    def slots(self) -> int:
        return self.kyutai.slots


@dataclass(frozen=True, slots=True)
class Memory:
    """``total_bytes``: the most that the model's process has held. On CUDA what torch has reserved on the device
    (graphs and working memory included, the driver's own not), on a CPU its resident memory (the interpreter and
    its libraries included). ``frame_bytes``: what attention remembers of a frame, if that is in pages."""

    sizes: Sizes
    total_bytes: int
    frame_bytes: int = 0

    def write(self, report: Path) -> None:
        report.write_text(json.dumps(dataclasses.asdict(self)))

    @staticmethod
    def read(report: Path) -> Memory:
        found = json.loads(report.read_text())
        return Memory(Sizes(**found["sizes"]), found["total_bytes"], found["frame_bytes"])

    def floor_s(self, sessions: int, frames: int, bytes_per_s: float) -> float:
        """The least time of a step of so many sessions with so many frames behind each."""
        return (self.sizes.read + sessions * frames * self.frame_bytes) / bytes_per_s


class Age:
    """How many frames each conversation has behind it at least, which a process says and that of the model looks up
    before each step: in a file, that both have in memory."""

    def __init__(self, path: Path, *, write: bool = False) -> None:
        if write:
            path.write_bytes(bytes(8))
        self._frames = np.memmap(path, np.int64, "r+" if write else "r")

    @property
    def frames(self) -> int:
        return int(self._frames[0])

    @frames.setter
    def frames(self, frames: int) -> None:
        self._frames[0] = frames
