"""Steps of some rows of a batch: the active ones, and as few others as make up one of a few sizes.

Owns the sizes, and a set of streaming states for each, which is put into the modules for a step: what is small is
copied there from the batch's own and back, attention's memory is read and written where it is. So a step costs what its
rows cost, not what all slots do, and on CUDA each size has graphs of its own, over addresses of its own. Which rows a
step has, its caller says; knows no tokens and no audio.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from moshi.models.compression import MimiModel
from moshi.models.lm import LMGen
from moshi.modules.streaming import State, StreamingModule
from moshi.utils.compile import CUDAGraphed

from rtc_server.engine.model import BoolArray
from rtc_server.models.kyutai.attention import Filled, GraphOfEachExtent
from rtc_server.models.kyutai.kv_cache import Ring, Rows
from rtc_server.models.kyutai.wipe import RowTensor

LEAST_ON_A_GPU: Final = 8
"""Rows of the smallest bucket there, where a step of one takes as long: most of it goes into reading the weights."""
_OF_CONDITIONS: Final = ("condition_sum", "condition_cross")
"""The same in every row, and there for each."""


def sizes(slots: int, *, cpu: bool, pages: bool = True) -> list[int]:
    """How many rows a step may have, the fewest first: each is twice the one before, and the last the whole batch.
    ``pages``: whether attention's memory is in such; on a GPU there is no other size if not, for copies of the rings of
    rows that lie apart, as far as the longest goes, take longer than what they save."""
    if not (cpu or pages):
        return [slots]
    found, size = [], 1 if cpu else LEAST_ON_A_GPU
    while size < slots:
        found.append(size)
        size *= 2
    return [*found, slots]


def chosen(active: BoolArray, size: int) -> npt.NDArray[np.int64]:
    """The rows of a step in a bucket of this size: the active ones in their order, and others to make it full."""
    if size == len(active):
        return np.arange(size)
    rows, idle = np.flatnonzero(active), np.flatnonzero(~active)
    return np.concatenate([rows, idle[: size - len(rows)]])


class Bucket:
    """A batch of ``size`` rows. This is the whole one, whose states are those that the modules came with."""

    def __init__(self, size: int, masks: Sequence[ExecMask]) -> None:
        """``masks``: of the modules whose rows do not take part in each step."""
        self.size = size
        self.masks = masks

    def take(self, rows: npt.NDArray[np.int64], there: torch.Tensor) -> None:
        """Have the next step compute these ``rows`` of the batch, int64, shape [size]; ``there``: the same on the
        device, of whatever type of number."""

    def put_back(self) -> None:
        """The step has been computed: what it has changed belongs to the batch."""


class Part(Bucket):
    """A bucket of fewer rows than there are slots."""

    def __init__(
        self, size: int, slots: int, states: Sequence[State], tensors: Iterable[RowTensor], filled: Filled
    ) -> None:
        """``states``: the batch's own, fresh; ``tensors``: what they hold of rows."""
        super().__init__(size, (ExecMask(), ExecMask()))
        self._slots = slots
        self._filled = filled
        self.states = [_smaller(state, size, slots) for state in states]
        made = {id(state): other for state, other in zip(states, self.states, strict=True)}
        self._homes = [each for each in tensors if not isinstance(each.owner, Ring)]
        self._owners = [made[id(each.owner)] for each in self._homes]
        self._here = [_part_of(each, size) for each in self._homes]
        self._settle()
        device = states[0].device
        copies = max(each.copies for each in self._homes)
        # Graphs read it: where each row is in the batch, once for each of its copies.
        self._index = torch.zeros((copies, size), dtype=torch.long, device=device)
        self._steps = torch.arange(copies, device=device)[:, None] * slots
        self._gather, self._scatter = (
            CUDAGraphed(each, disable=device.type != "cuda") for each in (self._gather_now, self._scatter_now)
        )
        self._on_cpu = device.type == "cpu"

    def take(self, rows: npt.NDArray[np.int64], there: torch.Tensor) -> None:
        torch.add(self._steps, there.long(), out=self._index)
        first = int(rows[0])
        together = self._on_cpu and len(self._index) == 1 and bool((np.diff(rows) == 1).all())
        self._filled.rows = Rows(self._index, slice(first, first + self.size) if together else None)
        self._gather()

    def put_back(self) -> None:
        for owner, home, here in zip(self._owners, self._homes, self._here, strict=True):
            now = getattr(owner, home.name)
            if now is not here:
                here.copy_(now)
        self._settle()
        self._scatter()
        self._filled.rows = None

    def _settle(self) -> None:
        """Keep every tensor in its place, whatever a step has put there."""
        for owner, home, here in zip(self._owners, self._homes, self._here, strict=True):
            setattr(owner, home.name, here)

    def _gather_now(self) -> None:
        for home, here in zip(self._homes, self._here, strict=True):
            torch.index_select(home.tensor, home.dim, self._index[: home.copies].flatten(), out=here)

    def _scatter_now(self) -> None:
        for home, here in zip(self._homes, self._here, strict=True):
            home.tensor.index_copy_(home.dim, self._index[: home.copies].flatten(), here)


class Buckets:
    """Those of Mimi and a language model in streaming."""

    def __init__(
        self,
        mimi: MimiModel,
        lm_gen: LMGen,
        tensors: Sequence[RowTensor],
        filled: Filled,
        slots: int,
        *,
        pages: bool,
    ) -> None:
        """``tensors``: all that their streaming states hold of rows; no step has run. ``pages``: see :func:`sizes`."""
        self._modules = _streaming_modules(mimi, lm_gen)
        home = [_state_of(module) for module in self._modules]
        on_cpu = lm_gen.lm_model.device.type == "cpu"
        self._states: dict[int, Sequence[State]] = {slots: home}
        self._buckets: list[Bucket] = []
        for size in sizes(slots, cpu=on_cpu, pages=pages)[:-1]:
            part = Part(size, slots, home, tensors, filled)
            self._states[size] = part.states
            self._buckets.append(part)
        self._buckets.append(Bucket(slots, (ExecMask(), ExecMask())))
        self._current = slots

    @property
    def sizes(self) -> list[int]:
        """The fewest rows first."""
        return [each.size for each in self._buckets]

    def of(self, rows: int) -> Bucket:
        """The smallest for so many active rows, whose states are in the modules from now on."""
        found = next(each for each in self._buckets if each.size >= rows)
        if found.size != self._current:
            for module, state in zip(self._modules, self._states[found.size], strict=True):
                object.__setattr__(module, "_streaming_state", state)  # torch's own looks for parameters
            self._current = found.size
        return found

    def forget_masks(self) -> None:
        """Set the masks on the device again at the next step, changed or not."""
        for each in self._buckets:
            for mask in each.masks:
                mask.forget()


class ExecMask:
    """The rows that a module executes: set on the device only when they change."""

    def __init__(self) -> None:
        self._current: BoolArray | None = None

    def set(self, module: StreamingModule[Any], rows: BoolArray, there: torch.Tensor) -> None:
        """``there``: the same on the device, 1 or 0."""
        if self._current is None or not np.array_equal(self._current, rows):
            module.set_exec_mask(there > 0)
            self._current = rows.copy()

    def forget(self) -> None:
        """The module's mask is no longer what was set here last."""
        self._current = None


def _streaming_modules(mimi: MimiModel, lm_gen: LMGen) -> list[StreamingModule[Any]]:
    """All that have a streaming state. LMGen does not own up to those of the model inside it."""
    found: list[StreamingModule[Any]] = []
    roots: tuple[StreamingModule[Any], ...] = (mimi, lm_gen, lm_gen.lm_model)
    for root in roots:
        root._apply_named_streaming(lambda _, module: found.append(module))
    return found


def _state_of(module: StreamingModule[Any]) -> State:
    state = module._streaming_state
    assert isinstance(state, State), "it streams"
    return state


def _smaller(state: State, size: int, slots: int) -> State:
    """The same of fewer rows, but for the tensors that rows have parts of; attention's memory is the same."""
    made = copy.copy(state)
    copies = state.batch_size // slots
    made.batch_size = size * copies
    made.exec_mask = torch.ones(made.batch_size, dtype=torch.bool, device=state.device)
    made._set_exec_mask_graphed = None
    for name, value in vars(state).items():
        if isinstance(value, CUDAGraphed):
            setattr(made, name, CUDAGraphed(value.func, disable=value.disable))
        elif isinstance(value, GraphOfEachExtent):
            setattr(made, name, value.afresh())
        elif name in _OF_CONDITIONS and value is not None:
            setattr(made, name, torch.cat([part[:size] for part in value.split(slots)]))
    return made


def _part_of(tensor: RowTensor, size: int) -> torch.Tensor:
    """Room for so many rows of it."""
    shape = list(tensor.tensor.shape)
    shape[tensor.dim] = size * tensor.copies
    return torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
