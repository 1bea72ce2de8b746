"""Counts the bytes that modules of the moshi package hold: weights and streaming states.

Counts what is allocated, tensor by tensor, on whatever device; on torch's ``meta`` device that is what would be. Knows
no checkpoint and no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from moshi.modules.streaming import State
from moshi.modules.transformer import RingKVCache

from rtc_server.models.kyutai.kv_cache import Ring


def weight_bytes(*modules: torch.nn.Module) -> int:
    """Bytes of their parameters and buffers; shared ones count once."""
    return _total(tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))


def state_bytes(states: Mapping[str, State]) -> int:
    """Bytes of streaming states, for all rows, attention caches included."""
    return _total(tensor for state in states.values() for tensor in _tensors(state))


def _tensors(holder: object) -> Iterator[torch.Tensor]:
    for value in vars(holder).values():
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, State | RingKVCache | Ring):
            yield from _tensors(value)


def _total(tensors: Iterator[torch.Tensor]) -> int:
    once = {id(tensor): tensor for tensor in tensors}
    return sum(tensor.numel() * tensor.element_size() for tensor in once.values())
