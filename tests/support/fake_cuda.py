"""A CUDA device that is only pretended: torch's fake tensors, which have a device, a shape and no contents. What a GPU
would refuse, or wait for, shows on any machine: operations on tensors of two devices, and reading what is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from moshi.models import loaders
from moshi.utils import compile as moshi_compile
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from rtc_server.models.kyutai import exchange, model, wipe
from rtc_server.models.kyutai.checkpoint import without_weights
from rtc_server.models.kyutai.kv_cache import Ring

GIB = 2**30
DEVICE = "cuda:0"
"""With its number: torch asks a driver for the one that is current."""


@dataclass(slots=True)
class FakeCuda:
    """``free_bytes``, ``total_bytes``: what the device says of its memory. ``waits``: how often the host has waited for
    its stream."""

    free_bytes: int = 80 * GIB
    total_bytes: int = 80 * GIB
    waits: int = 0
    crossings: list[Crossing] = field(default_factory=list)

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        return self.free_bytes, self.total_bytes

    def current_stream(self, device: object = None) -> FakeCuda:
        return self

    def synchronize(self) -> None:
        self.waits += 1


class _HostTorch:
    """torch for the buffers of the host, which are real: numpy writes into them."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def _real(make: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        assert kwargs.pop("pin_memory"), "what the device copies from and to is page-locked"
        with unset_fake_temporarily():
            made: torch.Tensor = make(*args, **kwargs)
        return made

    def ones(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._real(torch.ones, *args, **kwargs)

    def empty(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._real(torch.zeros, *args, **kwargs) if "pin_memory" in kwargs else torch.empty(*args, **kwargs)


def _row_tensor(path: str, owner: object, name: str, rows: int, slots: int) -> wipe.RowTensor:
    """What a fresh row looks like cannot be read there."""
    return wipe.RowTensor(path, owner, name, int(isinstance(owner, Ring)), rows // slots, 0.0)


@contextlib.contextmanager
def fake_cuda(device: FakeCuda | None = None) -> Iterator[FakeCuda]:
    """One device. Tensors that are made there, or moved there, are fake."""
    device = device or FakeCuda()
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True):
        for name in ("mem_get_info", "current_stream"):
            patch.setattr(torch.cuda, name, getattr(device, name))
        patch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch.cuda, "memory_reserved", lambda _=None: 0)
        patch.setattr(exchange, "torch", _HostTorch())
        patch.setattr(wipe, "_row_tensor", _row_tensor)
        patch.setattr(model, "row_format", lambda *_: "fake")  # a sum of some weights, once
        with (
            moshi_compile.no_compile(),
            moshi_compile.no_cuda_graph(),
            _Device() as operations,
            _Indexing(),
            below_autograd(),
        ):
            device.crossings = operations.crossings
            yield device


@dataclass(frozen=True, slots=True)
class Crossing:
    """An operation that touched the host and the device."""

    name: str
    given: tuple[str, ...]
    made: tuple[str, ...]


class _Device(TorchDispatchMode):
    """What torch's fake tensors cannot do in a build without CUDA, where a kernel asks for the device itself, is done
    by meta tensors of the same shapes; and what crosses is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.crossings: list[Crossing] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_the_host_s(args, kwargs):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        try:
            made = func(*args, **kwargs)
        except RuntimeError as error:
            if "not linked with support for cuda" not in str(error) and "from the 'CUDA' backend" not in str(error):
                raise
            made = _by_shapes(func, args, kwargs)
        given, out = _devices((args, kwargs)), _devices(made)
        if len({*given, *out}) > 1:
            self.crossings.append(Crossing(func._schema.name.removeprefix("aten::"), given, out))
        return made


class _Indexing(TorchFunctionMode):
    """Indexes by operations: indexing itself asks for the device before it is one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fake = bool(args) and isinstance(args[0], FakeTensor)
        if fake and func is torch.Tensor.__getitem__:
            return _part(*args)
        if fake and func is torch.Tensor.__setitem__:
            return _put(*args)
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if "not linked with support for cuda" not in str(error):
                raise
            name = _OPERATIONS.get(func.__name__, func.__name__)
            return getattr(torch.ops.aten, name)(*args, **(kwargs or {}))


_OPERATIONS = {
    "__invert__": "bitwise_not",
    "__neg__": "neg",
    "__iadd__": "add_",
    "__isub__": "sub_",
    "__imul__": "mul_",
    "__rsub__": "rsub",
    "__radd__": "add",
    "__rmul__": "mul",
}
below_autograd: Any = torch._C._AutoDispatchBelowAutograd  # which asks for the device before some operations


def _part(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    given = index if isinstance(index, tuple) else (index,)
    named = sum(each is not None and each is not Ellipsis for each in given)
    found, dim, tensors = tensor, 0, {}
    for each in given:
        if each is Ellipsis:
            dim += tensor.dim() - named
        elif each is None:
            found, dim = found.unsqueeze(dim), dim + 1
        elif isinstance(each, slice):
            ends = each.start or 0, 2**63 - 1 if each.stop is None else each.stop, each.step or 1
            found, dim = torch.ops.aten.slice(found, dim, *ends), dim + 1
        elif isinstance(each, torch.Tensor | list):
            tensors[dim], dim = torch.as_tensor(each, device=tensor.device), dim + 1
        else:
            found = found.select(dim, int(each))
    if not tensors:
        return found
    return torch.ops.aten.index(found, [tensors.get(dim) for dim in range(max(tensors) + 1)])


def _put(tensor: torch.Tensor, index: Any, value: Any) -> None:
    given = index if isinstance(index, tuple) else (index,)
    if any(isinstance(each, torch.Tensor | list) for each in given):
        where = [torch.as_tensor(each, device=tensor.device) if isinstance(each, list) else each for each in given]
        there = value if isinstance(value, torch.Tensor) else torch.full((), value, dtype=tensor.dtype, device=DEVICE)
        whole = [each for each in where if not isinstance(each, torch.Tensor)]
        assert all(each == slice(None) for each in whole), where
        if where[0].dtype is torch.bool and not isinstance(value, torch.Tensor):  # as torch does it: without a wait
            mask = where[0].view(*where[0].shape, *[1] * (tensor.dim() - where[0].dim()))
            torch.ops.aten.masked_fill_(tensor, mask, value)
            return
        torch.ops.aten.index_put_(tensor, [each if isinstance(each, torch.Tensor) else None for each in where], there)
        return
    part = _part(tensor, index)
    if isinstance(value, torch.Tensor):
        torch.ops.aten.copy_(part, value)
    else:
        torch.ops.aten.fill_(part, value)


class NumberedPieces:
    """A tokenizer with a word of its own for each token."""

    def piece_size(self) -> int:
        size: int = loaders._lm_kwargs["text_card"]
        return size

    def id_to_piece(self, id: int) -> str:
        return f"\u2581{id}"

    def is_byte(self, id: int) -> bool:
        return False

    is_control = is_unknown = is_unused = is_byte


class FakeWeights(loaders.CheckpointInfo):
    """A checkpoint whose models are on the pretended device: made on torch's ``meta`` device, where nothing is drawn,
    and so of any size. Without a tokenizer it has one word for each token."""

    @staticmethod
    def of(checkpoint: loaders.CheckpointInfo) -> FakeWeights:
        return FakeWeights(**vars(without_weights(checkpoint)))

    def get_mimi(self, device: Any = "cpu") -> Any:
        with unset_fake_temporarily(), torch.device("meta"):
            made = super().get_mimi("meta")
        return made if str(device) == "meta" else _on_device(made)

    def get_moshi(  # type: ignore[override]
        self, device: Any = "cpu", dtype: torch.dtype = torch.bfloat16, **named: Any
    ) -> Any:
        with unset_fake_temporarily(), torch.device("meta"):
            made = super().get_moshi("meta", dtype, **named)
        return made if str(device) == "meta" else _on_device(made)

    def get_text_tokenizer(self) -> Any:
        return NumberedPieces() if self.tokenizer is None else super().get_text_tokenizer()


def _on_device(module: torch.nn.Module) -> torch.nn.Module:
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                there = torch.empty(parameter.shape, dtype=parameter.dtype, device=DEVICE)
                each._parameters[name] = torch.nn.Parameter(there, requires_grad=False)
        for name, buffer in each._buffers.items():
            if buffer is not None:
                each._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=DEVICE)
    return module


def _is_the_host_s(args: Any, kwargs: Any) -> bool:
    """Whether it is about real tensors alone."""
    given = [each for each in _pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    stays = torch.device(kwargs.get("device") or "cpu").type == "cpu"
    return bool(given) and stays and not any(isinstance(each, FakeTensor) for each in given)


def _devices(tree: Any) -> tuple[str, ...]:
    return tuple(each.device.type for each in _pytree.tree_leaves(tree) if isinstance(each, torch.Tensor))


def _by_shapes(func: Any, args: Any, kwargs: Any) -> Any:
    given = [each for each in _pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    (device, *others) = {each.device for each in given if each.dim() or each.device.type == "cuda"}
    if others and func._schema.name != "aten::copy_":
        raise RuntimeError(f"{func._schema.name}: tensors on {device} and {others}")
    written = [argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments]

    device = kwargs.get("device") or device

    def on_meta(each: Any) -> Any:
        if isinstance(each, torch.device):
            return torch.device("meta")
        if not isinstance(each, torch.Tensor):
            return each
        return torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="meta")

    with unset_fake_temporarily():
        shapes = func(*_pytree.tree_map(on_meta, args), **_pytree.tree_map(on_meta, kwargs))
    if any(written):
        return args[written.index(True)]
    return _pytree.tree_map(
        lambda each: torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=device), shapes
    )
