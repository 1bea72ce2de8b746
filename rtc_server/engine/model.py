"""The contract between the engine and a batched streaming model.

Owns the contract and nothing else: no torch, no transport, no clock. A model has a fixed number of rows
(slots), each with its own streaming state; one call of :meth:`StreamingModel.step` advances the rows that
have a frame and leaves the others exactly as they were.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


class ServiceKind(enum.StrEnum):
    """What a model does for a client."""

    ECHO = "echo"
    DIALOGUE = "dialogue"
    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"
    DETECT = "detect"
    """Tells how likely a pause is. Serves sessions of other services, and has none of its own."""


class TokenMark(enum.IntEnum):
    """What a row's text token of one step was, besides its text."""

    NONE = 0
    """There was none: the row is not that far, or the model does not write."""
    TEXT = 1
    """A piece of a word. Its text may be empty: a part of a character."""
    PADDING = 2
    """Nothing was written in this frame."""
    BOUNDARY = 3
    """A word ends or begins here."""


@dataclass(frozen=True, slots=True)
class Example:
    """Something to try with a model: ``say`` are phrases for one conversation, in this order."""

    topic: str
    say: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model is.

    ``name`` is what the user asked for (``echo``, ``pico``, a hub repository, the name of a local directory, never
    a full path); ``device`` is ``cpu``, ``cuda`` or ``cuda:N``; ``speaks`` and ``writes`` say whether it
    makes audio and text. Of a model that transcribes: ``delay_s``, by which it writes after it has heard;
    ``prefix_s``, the silence that it wants before the first word; ``pause_heads``, how many probabilities of a
    pause it gives with each frame.
    ``languages``: those that it hears, as primary subtags of BCP 47 (``en``), its own first; empty: not known.
    ``row_format``: what the state of one of its rows is. A :class:`MovableModel` takes the rows of another where both
    have the same; empty: its rows stay where they are.
    Where its makers say more of it: ``notice``, what each of its users should know; ``hint``, a command that
    goes with that; ``examples``, what to say to it. All of it for people's eyes.
    """

    name: str
    kind: ServiceKind
    slots: int
    device: str
    speaks: bool
    writes: bool
    delay_s: float = 0.0
    prefix_s: float = 0.0
    pause_heads: int = 0
    notice: str = ""
    hint: str = ""
    examples: tuple[Example, ...] = ()
    languages: tuple[str, ...] = ()
    row_format: str = ""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What a model holds of its device's memory; 0 where that is not known.

    ``weights_bytes``: parameters and buffers. ``cache_bytes``: the streaming states of all slots, which are there for
    the model's life, in use or not. ``rest_bytes``: what is reserved besides (working memory, graphs, what the
    allocator keeps). ``device_free_bytes`` and ``device_total_bytes``: of an accelerator, other processes included.
    """

    weights_bytes: int = 0
    cache_bytes: int = 0
    rest_bytes: int = 0
    device_free_bytes: int = 0
    device_total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PagesUse:
    """Memory that rows share, in pages, which each has as it grows: ``free`` of ``total``. ``newcomers``: for how many
    more conversations there is room."""

    total: int
    free: int
    newcomers: int


@dataclass(frozen=True, slots=True)
class RowOutput:
    """What one row made in one step.

    ``pcm``: float32, shape [1920], mono at 24 kHz, nominally within ±1, or None while the row has no
    audio (a model's delay at the start of a stream; a model that does not speak).
    ``text``: whole characters only, leading space included; empty when nothing was written.
    ``pauses``: probabilities from the model's voice-activity heads, empty where it has none.
    ``mark``: what the text token of this step was.
    """

    pcm: FloatArray | None = None
    text: str = ""
    pauses: tuple[float, ...] = ()
    mark: TokenMark = TokenMark.NONE


class StreamingModel(Protocol):
    """A model with ``info.slots`` independent rows. All calls come from one thread, in any order after
    :meth:`warm_up`; none of them may block on anything but the device."""

    @property
    def info(self) -> ModelInfo: ...

    def warm_up(self) -> None:
        """Pay now what the first step would otherwise pay (compilation, graphs, allocations), then leave
        every row wiped."""

    def reset(self, rows: BoolArray) -> None:
        """Wipe the state of the rows where ``rows`` (bool, shape [slots]) is True: not just rewound, but
        cleared, so that nothing of the last conversation (audio, text, NaN) can reach the next."""

    def step(self, pcm: FloatArray, active: BoolArray) -> list[RowOutput | None]:
        """Advance the active rows by one frame.

        ``pcm``: float32, shape [slots, 1920], finite and within ±1 (the engine sees to that); rows that
        are not active are ignored. Good until the call returns. ``active``: bool, shape [slots].
        Returns one entry a slot: None for rows that were not active.
        """

    def memory(self) -> MemoryUse:
        """The memory that it holds now. Must not wait for the device."""

    def close(self) -> None:
        """Release the device. Idempotent."""


@runtime_checkable
class AgingModel(StreamingModel, Protocol):
    """A model whose steps take the longer the more frames its conversations have had."""

    @property
    def oldest_frames(self) -> int:
        """From so many frames on a conversation costs no more."""

    def read_at_least(self, frames: int) -> None:
        """Have steps take as long as if the oldest conversation had so many frames at least, from the next step on: for
        those who measure what old ones cost. Changes no output. After :meth:`warm_up`, which ends it."""


@runtime_checkable
class SharingModel(StreamingModel, Protocol):
    """A model whose rows may share memory that does not suffice for all of them at their longest."""

    def pages_use(self, used: BoolArray) -> PagesUse | None:
        """What there is of it, where the rows in ``used`` (bool, shape [slots]) have a conversation: what others have
        is to be wiped, and as good as free. None: each row has a memory of its own. Does not wait for the device."""


class LaunchedStep(Protocol):
    """A step that a device computes."""

    def wait(self) -> None:
        """Until it is computed. Raises what went wrong there. Once, before the next launch."""

    def outputs(self) -> list[RowOutput | None]:
        """What :meth:`StreamingModel.step` returns. Once, after :meth:`wait`; before a later step is waited for, and
        before a row is reset, copied or filled."""


@runtime_checkable
class LaunchingModel(StreamingModel, Protocol):
    """A model whose steps can be begun and waited for in two calls."""

    @property
    def computes_apart(self) -> bool:
        """Whether the host is free while a step is computed. If not, :meth:`launch` computes it."""

    def launch(self, pcm: FloatArray, active: BoolArray) -> LaunchedStep:
        """Begin a step of these, as in :meth:`StreamingModel.step`."""


class RowReader(Protocol):
    """The state of one row as bytes, as it was when the reader was made: later steps of the row change nothing."""

    @property
    def size(self) -> int:
        """In bytes; the same for every row of a format."""

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset``: all of them, where there are so many."""


class RowWriter(Protocol):
    """Puts a state into a row that is wiped and not stepped, piece by piece."""

    def write(self, data: bytes) -> bool:
        """The next bytes; whether these were the last. Raises ValueError for what is no state of this format: the row
        is to be wiped then."""


@runtime_checkable
class MovableModel(StreamingModel, Protocol):
    """A model whose rows can go on in another process: the next steps there are what they would have been here, as far
    as two batches of it agree. Only if ``info.row_format`` says so."""

    def export_row(self, row: int) -> RowReader:
        """The state of a row, between two steps."""

    def import_row(self, row: int) -> RowWriter:
        """To put a state into a row."""
