"""The depth transformer of the moshi package without rings: what it remembers lasts for one step, a codebook at a time.

Owns what its layers remember within a step, and which weights belong to which codebook. The package makes new streaming
states for it in each step, with rings, offsets and masks, of which all is known in advance: here it is one tensor and a
table. The loop over the codebooks, the choice of tokens and all of a layer but attention's ring stay the package's.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from moshi.models.lm import LMModel
from moshi.modules.transformer import StreamingTransformer, expand_repeated_kv
from torch.nn import functional


def without_rings(lm: LMModel) -> bool:
    """Take over the depth transformer of ``lm``, and say so. One that is built in another way than those of Moshi and
    Hibiki is left as it is, and so is a model without one."""
    depth: Any = lm.depformer
    if depth is None or depth.positional_embedding != "none":
        return False
    if not all(layer.weights_per_step and layer.gating and layer.self_attn.causal for layer in depth.layers):
        return False
    _Depth(depth)
    return True


class _Depth:
    """Stands in for the transformer's ``streaming`` and ``forward``."""

    def __init__(self, depth: StreamingTransformer) -> None:
        self._depth = depth
        self._layers: Any = depth.layers
        attention: Any = self._layers[0].self_attn
        like = attention._init_streaming_state(0).kv_cache.cache  # of no size
        _, _, self._kv_heads, self._codebooks, self._width = like.shape
        self._dtype, self._device = like.dtype, like.device
        unseen = torch.ones((self._codebooks, self._codebooks), dtype=torch.bool, device=like.device).triu(1)
        # A table of what is added to the scores at each codebook; in one place for life: graphs read it.
        self._bias = torch.zeros(unseen.shape, dtype=like.dtype, device=like.device).masked_fill_(unseen, -math.inf)
        self._kept: torch.Tensor | None = None
        self._codebook = 0
        depth.streaming = self._streaming  # type: ignore[method-assign, assignment]
        depth.forward = self._forward  # type: ignore[method-assign]

    @contextlib.contextmanager
    def _streaming(self, rows: int) -> Iterator[None]:
        """One step. Zeros, and no memory of the step before: what is masked counts nothing only if it is finite."""
        state: Any = self
        self._depth._streaming_state = state  # by which the package knows that it streams
        shape = (len(self._layers), 2, rows, self._kv_heads, self._codebooks, self._width)
        self._kept = torch.zeros(shape, dtype=self._dtype, device=self._device)
        self._codebook = 0
        try:
            yield
        finally:
            self._kept = self._depth._streaming_state = None

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the next codebook: shape [rows, 1, width] in and out."""
        if self._kept is None:
            made: torch.Tensor = type(self._depth).forward(self._depth, x)
            return made
        given = x.dtype
        for layer, kept in zip(self._layers, self._kept, strict=True):
            attended = self._attend(layer.self_attn, layer.norm1(x), kept)
            x = x.to(attended) + layer.layer_scale_1(attended)
            fed = self._own(layer.gating, layer.weights_per_step_schedule)(layer.norm2(x))
            x = x.to(fed) + layer.layer_scale_2(fed)
        self._codebook += 1
        return x.to(given)

    def _attend(self, attention: Any, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """``kept``: the layer's keys and values, [2, rows, heads, codebooks, width]."""
        rows = x.shape[0]
        heads, kv_heads, schedule = attention.num_heads, self._kv_heads, attention.weights_per_step_schedule
        projected = self._own(attention.in_projs, schedule)(x)
        split = projected.view(rows, heads + 2 * kv_heads, self._width)
        new = split[:, heads:].view(rows, 2, kv_heads, self._width)
        kept[:, :, :, self._codebook] = new.transpose(0, 1)
        keys, values = kept[0], kept[1]
        if attention.kv_repeat > 1:
            keys, values = (expand_repeated_kv(each, attention.kv_repeat) for each in (keys, values))
        bias = self._bias[self._codebook].expand(rows, 1, 1, -1)
        seen = functional.scaled_dot_product_attention(split[:, :heads, None], keys, values, bias)
        out: torch.Tensor = self._own(attention.out_projs, schedule)(seen.reshape(rows, 1, heads * self._width))
        return out

    def _own(self, modules: Any, schedule: Sequence[int] | None) -> Any:
        """The one of these that belongs to this codebook."""
        if len(modules) == 1:
            return modules[0]
        return modules[self._codebook if schedule is None else schedule[self._codebook]]
