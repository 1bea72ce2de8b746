"""The state of one row as bytes, and back: its part of each streaming state, and what is kept of it on the host.

Owns the order of these bytes and the name of their format, by which two processes know that a row of one can go on in
the other. Knows tensors with rows; what they mean, the moshi package does.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import struct
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import torch

_LAYOUT: Final = 2
"""One more with each change of what the bytes are."""
_OF_A_WEIGHT: Final = 32
"""Numbers of each weight that are looked at to tell one checkpoint from another."""
_LEAST_NUMBER: Final = -2
"""Of tokens (``LMModel.ungenerated_token_id``) and offsets."""
_HOST: Final = struct.Struct("<qQQB3x")
_HELD_BACK_BYTES: Final = 4
HOST_BYTES: Final = _HOST.size + _HELD_BACK_BYTES


class RowPart(Protocol):
    """A part of the state of rows. ``path``: where it stands among the others; of each row it is of ``row_shape``."""

    @property
    def path(self) -> str: ...

    @property
    def row_shape(self) -> list[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def copy(self, slots: int, row: int) -> torch.Tensor:
        """What one of so many slots has there, on the device."""

    def put(self, slots: int, row: int, value: torch.Tensor) -> None:
        """Put ``value`` there, which is on the device. Raises ValueError if no row can be like that."""


def pack_host(steps: int, key: tuple[int, int], held_back: bytes) -> bytes:
    """What is kept of a row on the host: its number of steps, the key of its chance, bytes of a character that is not
    complete."""
    return _HOST.pack(steps, *key, len(held_back)) + held_back.ljust(_HELD_BACK_BYTES, b"\0")


def unpack_host(raw: bytes) -> tuple[int, tuple[int, int], bytes]:
    """Raises ValueError."""
    steps, key, other_key, held = _HOST.unpack(raw[: _HOST.size])
    if steps < 0 or held >= _HELD_BACK_BYTES:
        raise ValueError("no row can be like that")
    return steps, (key, other_key), raw[_HOST.size : _HOST.size + held]


def row_format(tensors: Iterable[RowPart], modules: Iterable[torch.nn.Module], settings: object) -> str:
    """The name of the format: equal where weights, layout, ``settings`` and the kind of device are."""
    told = hashlib.sha256(f"{_LAYOUT} {importlib.metadata.version('moshi')} {settings!r}".encode())
    for tensor in tensors:
        told.update(f"{tensor.path} {tensor.dtype} {tensor.device.type} {tensor.row_shape}".encode())
    for module in modules:
        looked_at = [_some_of(weight) for weight in module.state_dict().values() if weight.numel()]
        told.update(torch.cat(looked_at).cpu().numpy().tobytes())
    return told.hexdigest()[:32]


def _some_of(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _OF_A_WEIGHT)][:_OF_A_WEIGHT].to(torch.float32)


class TensorRows:
    """A copy of one row's state. On its device, or on the host where that has no memory to spare."""

    def __init__(self, host: bytes, tensors: Sequence[RowPart], row: int, slots: int) -> None:
        parts = [torch.frombuffer(bytearray(host), dtype=torch.uint8)]
        spare = _room(tensors)
        for tensor in tensors:
            part = tensor.copy(slots, row)
            parts.append(_as_bytes(part if spare else part.cpu()))
        self._parts = parts
        self.size = sum(part.numel() for part in parts)

    def read(self, offset: int, size: int) -> bytes:
        """See :class:`rtc_server.engine.model.RowReader`."""
        found = []
        for part in self._parts:
            if offset < part.numel() and size > 0:
                piece = part[offset : offset + size]
                found.append(piece.cpu().numpy().tobytes())
                size -= piece.numel()
            offset = max(0, offset - part.numel())
        return b"".join(found)


class TensorRowWriter:
    """Puts bytes of :class:`TensorRows` into a row. What is kept on the host is in :attr:`host` when all is written."""

    def __init__(self, tensors: Sequence[RowPart], row: int, slots: int) -> None:
        self.host = b""
        self._row = row
        self._slots = slots
        self._coming = [(None, HOST_BYTES), *((tensor, _row_bytes(tensor)) for tensor in tensors)][::-1]
        self._gathered = bytearray()

    def write(self, data: bytes) -> bool:
        """See :class:`rtc_server.engine.model.RowWriter`."""
        view = memoryview(data)
        while self._coming and (view or not self._coming[-1][1]):
            tensor, size = self._coming[-1]
            taken = view[: size - len(self._gathered)]
            self._gathered += taken
            view = view[len(taken) :]
            if len(self._gathered) < size:
                break
            self._put(tensor, self._gathered)
            self._gathered = bytearray()
            self._coming.pop()
        if view:
            raise ValueError("more than a row")
        return not self._coming

    def _put(self, tensor: RowPart | None, raw: bytearray) -> None:
        if tensor is None:
            self.host = bytes(raw)
            unpack_host(self.host)
            return
        value = torch.frombuffer(raw, dtype=torch.uint8).view(tensor.dtype).reshape(tensor.row_shape)
        if tensor.dtype is torch.int64 and bool((value < _LEAST_NUMBER).any()):
            raise ValueError(f"{tensor.path}: no row can be like that")
        tensor.put(self._slots, self._row, value.to(tensor.device))


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _row_bytes(tensor: RowPart) -> int:
    size = tensor.dtype.itemsize
    for length in tensor.row_shape:
        size *= length
    return size


def _room(tensors: Sequence[RowPart]) -> bool:
    """Whether a row can be copied on its device: to the host it takes a multiple of a step."""
    device = tensors[-1].device
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return bool(free > 2 * sum(_row_bytes(tensor) for tensor in tensors))
