"""Attention caches of another type than the model computes in: less memory for a session, at the price of rounding.

Owns how a cache is put in place of the moshi package's, and how numbers are stored in it. Shapes stay fixed, writes are
in place and nothing waits for the device, so that a step can be captured as a CUDA graph.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Final

import torch
from moshi.models.lm import LMModel
from moshi.modules.transformer import KVCacheResult, RingKVCache

from rtc_server.models.kyutai.options import KvDtype

_STORED: Final[dict[str, torch.dtype]] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8": torch.float8_e4m3fn,
}


class NarrowKVCache(RingKVCache):
    """A ring that stores keys and values as ``stored`` and gives them back in the type that they came in.

    The whole of a layer is widened when it is read: working memory for one layer at a time.
    """

    def __init__(self, like: RingKVCache, batch_size: int, stored: torch.dtype) -> None:
        """``like``: the package's own, of any batch size."""
        _, _, heads, capacity, width = like.cache.shape
        device = like.cache.device
        # Few operations know eight bits: they are kept as what they are, and read as what they mean. Zero is zero.
        kept = torch.uint8 if stored.itemsize == 1 else stored
        super().__init__(batch_size, heads, width, capacity, like.respect_exec_mask, device, kept)
        self._stored = stored
        self._largest = torch.finfo(stored).max

    def complete(self, k: torch.Tensor, v: torch.Tensor, exec_mask: torch.Tensor) -> KVCacheResult:
        kept = super().complete(self._narrow(k), self._narrow(v), exec_mask)
        return KVCacheResult(self._widen(kept.keys, k.dtype), self._widen(kept.values, v.dtype), kept.positions)

    def _narrow(self, values: torch.Tensor) -> torch.Tensor:
        """Clamp to the largest finite value: float8 has no infinity, only NaN."""
        if self._largest < torch.finfo(values.dtype).max:
            values = values.clamp(-self._largest, self._largest)
        return values.to(self._stored).view(self.cache.dtype)

    def _widen(self, kept: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return kept.view(self._stored).to(dtype)


def set_kv_dtype(lm: LMModel, kv_dtype: KvDtype | torch.dtype) -> None:
    """Give the attention of ``lm`` caches of this type, from when it starts streaming; ``auto`` leaves the package's.

    The package's caches are never allocated. The depth transformer's, of a few entries, stay as they are.
    """
    if kv_dtype == "auto":
        return
    stored = kv_dtype if isinstance(kv_dtype, torch.dtype) else _STORED[kv_dtype]
    for layer in lm.transformer.layers:
        attention: Any = layer.self_attn
        attention._init_streaming_state = functools.partial(_streaming_state, attention, stored)


def widened_bytes(lm: LMModel) -> int:
    """Working memory that reading narrow caches of ``lm``, which is streaming, takes for all rows; 0 without any."""
    states = lm.get_streaming_state().values()
    caches = [cache for state in states if isinstance(cache := getattr(state, "kv_cache", None), NarrowKVCache)]
    return max((cache.cache.numel() * lm.dtype.itemsize for cache in caches), default=0)


def _streaming_state(attention: Any, stored: torch.dtype, batch_size: int) -> Any:
    """The package's state, for no rows, and therefore of no size, made into one for ``batch_size`` with our cache."""
    empty = type(attention)._init_streaming_state(attention, 0)
    cache = NarrowKVCache(empty.kv_cache, batch_size, stored)
    return dataclasses.replace(empty, batch_size=batch_size, kv_cache=cache, offset=empty.offset.new_zeros(batch_size))
