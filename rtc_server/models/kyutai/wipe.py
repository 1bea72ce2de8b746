"""Clears a conversation's rows from the streaming states of the moshi package.

Owns the knowledge of how those states hold rows. Knows no engine, no audio and no text: it sees tensors with
a batch dimension. ``reset_streaming`` of the package rewinds a row, but leaves its attention cache as it was;
a NaN in there survives into the next conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from moshi.modules.streaming import State

from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai.kv_cache import PagedRing, Ring

_NOT_OF_A_ROW: Final = frozenset(
    {
        "exec_mask",  # set again before each step
        "initial",  # the tokens every stream begins with
        "condition_sum",  # these five come from the configuration and are the same in every row
        "condition_cross",
        "cfg_is_masked_until",
        "k_cross",
        "v_cross",
    }
)
_UNKNOWN_LAYOUT_HINT: Final = "This server knows the moshi package 0.2.13; install that version."


@dataclass(frozen=True, slots=True)
class RowTensor:
    """A tensor that holds rows. Found by attribute each time, for a step may replace the tensor itself.

    ``path``: where it stands among the states. ``dim``: its batch dimension. ``copies``: how many rows there belong to
    one slot (two under classifier-free guidance: slot ``i`` has rows ``i`` and ``slots + i``). ``blank``: its value
    when fresh.
    """

    path: str
    owner: object
    name: str
    dim: int
    copies: int
    blank: float

    @property
    def tensor(self) -> torch.Tensor:
        found: torch.Tensor = getattr(self.owner, self.name)
        return found

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @property
    def row_shape(self) -> list[int]:
        """Of what one slot has there."""
        shape = list(self.tensor.shape)
        shape[self.dim] = self.copies
        return shape

    def index(self, slots: int, rows: Sequence[int]) -> torch.Tensor:
        """Of these slots, along :attr:`dim`."""
        wanted = [row + copy * slots for copy in range(self.copies) for row in rows]
        return torch.tensor(wanted, dtype=torch.long, device=self.tensor.device)

    def copy(self, slots: int, row: int) -> torch.Tensor:
        """What one slot has there, on the device."""
        return self.tensor.index_select(self.dim, self.index(slots, [row]))

    def put(self, slots: int, row: int, value: torch.Tensor) -> None:
        """Put ``value`` there, of the shape :attr:`row_shape`."""
        self.tensor.index_copy_(self.dim, self.index(slots, [row]), value)

    def parts(self, slots: int, row: int) -> list[torch.Tensor]:
        """What one slot has there, as views without gaps."""
        copies = [self.tensor.select(self.dim, row + copy * slots) for copy in range(self.copies)]
        return copies if self.dim == 0 else [half for each in copies for half in each.unbind()]


class RowWiper:
    """Puts rows of streaming states back to what they were before the first frame.

    Costs a write of the wiped rows only, not of the batch.
    """

    def __init__(self, states: Mapping[str, State], slots: int) -> None:
        """``states``: fresh streaming states (no step has run), from ``get_streaming_state``. ``tensors``: all that
        they hold of a row.

        Raises :class:`ModelLoadError` if a state holds a tensor that is laid out in an unknown way: not
        wiping it could let one conversation reach the next.
        """
        self._slots = slots
        self.tensors = [
            _row_tensor(path, owner, name, state.batch_size, slots)
            for state_path, state in states.items()
            for path, owner, name in _tensors(state_path, state)
        ]
        self._homes = [(each.owner, each.name, each.tensor) for each in self.tensors]

    def wipe(self, rows: Sequence[int]) -> None:
        """Clear these slots in every state: a call or two for each type of number."""
        alike: dict[tuple[torch.dtype, float], list[torch.Tensor]] = {}
        for tensor in self.tensors:
            parts = [part for row in rows for part in tensor.parts(self._slots, row)]
            alike.setdefault((tensor.tensor.dtype, tensor.blank), []).extend(parts)
        for (_, blank), parts in alike.items():
            torch._foreach_zero_(parts)  # whatever was there, NaN included
            if blank:
                torch._foreach_add_(parts, blank)

    def put_back(self) -> None:
        """Keep every tensor where it was: what a step has replaced goes into the first one, where a graph of a whole
        step would look for it."""
        for owner, name, home in self._homes:
            now = getattr(owner, name)
            if now is not home:
                home.copy_(now)
                setattr(owner, name, home)


def _tensors(path: str, holder: object) -> Iterator[tuple[str, object, str]]:
    """``(path, owner, attribute)`` of every tensor with contents that belongs to rows, caches included."""
    for name, value in vars(holder).items():
        here = f"{path}.{name}"
        if name in _NOT_OF_A_ROW or callable(value):
            continue
        if isinstance(value, torch.Tensor):
            if value.numel():
                yield here, holder, name
        elif isinstance(value, list | tuple | dict | set):
            raise _unknown_layout(here)
        elif isinstance(value, PagedRing):
            continue  # no row has a place there
        elif isinstance(value, State | Ring):
            yield from _tensors(here, value)


def _row_tensor(path: str, owner: object, name: str, rows: int, slots: int) -> RowTensor:
    tensor: torch.Tensor = getattr(owner, name)
    # Keys and values lie in one tensor, [2, batch, heads, time, width]; everything else has its batch first.
    dim = 1 if isinstance(owner, Ring) and name == "cache" else 0
    blank = tensor.flatten()[0]
    if tensor.dim() <= dim or tensor.shape[dim] != rows or rows % slots or not bool((tensor == blank).all()):
        raise _unknown_layout(path)
    return RowTensor(path, owner, name, dim, rows // slots, blank.item())


def _unknown_layout(path: str) -> ModelLoadError:
    return ModelLoadError(
        f"The streaming state {path} is laid out in a way this server does not know.", _UNKNOWN_LAYOUT_HINT
    )
