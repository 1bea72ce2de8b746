"""Attention of the moshi package's streaming transformers, over that part of their rings which is filled.

Owns where the positions of a step are, who sees whom, and how far the rings are read: computed once a step for all
layers, where the package computes them in each, over the whole ring. A ring is filled from its beginning and holds as
many positions as attention may look back over, so a row sees the first entries of its ring, as many as it has written,
and beyond the extent that the host has chosen there is nothing for any row to see. Projections, norms and
feed-forward layers, and the order in which they are called, stay the package's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from moshi.models.compression import MimiModel
from moshi.models.lm import LMGen, LMModel
from moshi.modules.rope import RotaryEmbedding
from moshi.modules.streaming import State
from moshi.modules.transformer import StreamingMultiheadAttention, StreamingTransformer, expand_repeated_kv
from moshi.utils.compile import CUDAGraphed, torch_compile_lazy
from torch.nn import functional

from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai import page_attention, page_table
from rtc_server.models.kyutai.kv_cache import NarrowPagedRing, NarrowRing, PagedRing, Places, Ring, Rows
from rtc_server.models.kyutai.pages import Pages

_ALIGNED: Final = 8
"""Extents are multiples of it: vectors of numbers are added up in the same order as in a longer ring."""
_LEAST_BUCKET: Final = 256
"""Frames of the shortest extents that CUDA graphs are captured for; each next is twice as long."""


class Filled:
    """How far the rings of some transformers are filled. The host says so before each step, for it knows without asking
    the device.

    On CUDA extents come in few lengths (``buckets``), for each is captured as a graph of its own; and only as whole
    rings where these are widened to be read, for every graph keeps the memory that it works in. Of pages that are read
    in place nothing need be said: of them each row is read as far as it goes.
    """

    def __init__(self, *, cuda: bool, narrow: bool) -> None:
        """``narrow``: whether rings are widened when they are read."""
        self._cuda = cuda
        self._narrow = narrow
        self._longest_ring = 0
        self._least = 0
        self.frames: int | None = None
        """No row that takes part in the next step has more, the step's own included; None before the first word of the
        host, when rings are read as a whole. On CUDA it is one of :attr:`buckets`."""
        self.rows: Rows | None = None
        """Which rows of the rings the next step is about, if it is not about all."""

    def add_ring(self, capacity: int) -> None:
        self._longest_ring = max(self._longest_ring, capacity)

    @property
    def buckets(self) -> list[int]:
        """The lengths that there are on CUDA, in frames, the longest first. Empty on a CPU: any will do."""
        return self.buckets_on_cuda if self._cuda else []

    @property
    def buckets_on_cuda(self) -> list[int]:
        found = [self._longest_ring]
        shorter = _LEAST_BUCKET
        while shorter < self._longest_ring and not self._narrow:
            found.insert(1, shorter)
            shorter *= 2
        return found

    def to(self, frames: int) -> None:
        """Say how many frames the longest row of the next step has, that step included."""
        frames = max(frames, self._least)
        self.frames = min((each for each in self.buckets if each >= frames), default=self._longest_ring)
        if not self._cuda:
            self.frames = frames

    def at_least(self, frames: int) -> None:
        """Read as far as if a row had so many frames, until told otherwise: for a warm-up."""
        self._least = frames

    def extent(self, capacity: int, positions: int) -> int:
        """How far to read a ring of ``capacity`` in a step that adds so many positions to each row."""
        if self.frames is None:
            return capacity
        return min(capacity, -(-self.frames * positions // _ALIGNED) * _ALIGNED)


def read_what_is_filled(
    mimi: MimiModel, lm: LMModel, stored: torch.dtype | None = None, pages: Pages | None = None
) -> Filled:
    """Take over attention in these two, which are not streaming yet. ``stored``: the type of the language model's
    rings; None leaves the package's. ``pages``: what its rings are made of, if they are.

    The depth transformer, whose rings last one step only, is left alone. Raises ModelLoadError for attention that looks
    ahead, or back without a bound.
    """
    in_place = pages is not None and pages.in_place
    filled = Filled(cuda=lm.device.type == "cuda", narrow=stored is not None and not in_place)
    _Transformer(lm.transformer, filled, stored, pages)
    for module in mimi.modules():
        if isinstance(module, StreamingTransformer):
            _Transformer(module, filled, None, None)
    return filled


class GraphOfEachExtent:
    """Calls a function that is captured as a CUDA graph, one for each extent."""

    def __init__(self, function: Callable[..., Any], filled: Filled, capture: Callable[..., Any] = CUDAGraphed) -> None:
        self._function = function
        self._filled = filled
        self._capture = capture
        self.graphs: dict[int | None, Any] = {}

    def afresh(self) -> GraphOfEachExtent:
        """The same, with nothing captured yet."""
        return GraphOfEachExtent(self._function, self._filled, self._capture)

    def __call__(self, *arguments: Any) -> Any:
        frames = self._filled.frames
        if frames not in self.graphs:
            self.graphs[frames] = self._capture(self._function)
        return self.graphs[frames](*arguments)


def graph_each_extent(mimi: MimiModel, lm_gen: LMGen, filled: Filled) -> None:
    """Have what contains attention captured once for each extent, in these two, which are streaming on CUDA."""
    for state, name in (
        (mimi._streaming_state, "graphed_tr_enc"),
        (mimi._streaming_state, "graphed_tr_dec"),
        (lm_gen._streaming_state, "graphed_main"),
    ):
        graphed = getattr(state, name)
        if graphed is not None:
            setattr(state, name, GraphOfEachExtent(graphed.func, filled))


@dataclass
class _RingState(State):
    """Streaming state of one layer's attention. At which position its rows are, the transformer's state says."""

    kv_cache: Ring


class _Step(ABC):
    """Of one transformer and one step, the same in all of its layers."""

    index: torch.Tensor | Places
    """Where in the ring the step's positions go: int64, shape [rows, positions]; or where among pages."""
    rows: Rows | None
    """Which of the ring's rows the step is about, if it is not about all."""
    turn: tuple[torch.Tensor, torch.Tensor]
    """By what keys and queries are turned (RoPE): float32, shape [rows, positions, 1, width]."""

    @abstractmethod
    def attend(self, queries: torch.Tensor, ring: Ring, repeat: int) -> torch.Tensor:
        """What queries, of shape [rows, heads, positions, width], see in a ring that the step's keys and values are in
        already: the same shape. ``repeat``: how many heads share keys and values."""


class _MaskedStep(_Step):
    """Rings are read up to one extent for all rows, and what a row does not see is masked."""

    extent: int

    def __init__(self, unseen: torch.Tensor) -> None:
        """``unseen``: bool, shape [rows, 1, positions, extent]."""
        self._unseen = unseen
        self._bias: torch.Tensor | None = None

    def attend(self, queries: torch.Tensor, ring: Ring, repeat: int) -> torch.Tensor:
        keys, values = ring.read(self.extent, queries.dtype, self.index, self.rows)
        if repeat > 1:
            keys, values = (expand_repeated_kv(each, repeat) for each in (keys, values))
        return functional.scaled_dot_product_attention(queries, keys, values, self._bias_of(queries.dtype))

    def _bias_of(self, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the scores: 0 where a position is seen, else minus infinity."""
        if self._bias is None or self._bias.dtype is not dtype:
            nothing = torch.zeros(self._unseen.shape, dtype=dtype, device=self._unseen.device)
            self._bias = nothing.masked_fill_(self._unseen, -math.inf)
        return self._bias


class _StepInPlace(_Step):
    """Pages are read where they are, of each row as far as it goes."""

    def __init__(
        self, there: Places, since: torch.Tensor, last: torch.Tensor, least: torch.Tensor, capacity: int
    ) -> None:
        """``since``: int64, shape [rows, places]. ``last``: the step's position of each row, int64, shape [rows];
        ``least``: the same shape, as :func:`page_attention.attend` has it."""
        self.index = there
        self._pages = there.pages
        self._since = since
        self._last = last
        self._least = least
        self._capacity = capacity

    def attend(self, queries: torch.Tensor, ring: Ring, repeat: int) -> torch.Tensor:
        seen: torch.Tensor = page_attention.attend(
            queries[:, :, 0], ring.cache, self._pages, self._since, self._last, self._least, self._capacity
        )
        return seen[:, :, None]


class _Transformer:
    """Computes what a step's layers have in common, then calls the package's own ``forward``."""

    def __init__(
        self, transformer: StreamingTransformer, filled: Filled, stored: torch.dtype | None, pages: Pages | None
    ) -> None:
        layers: Any = transformer.layers
        first = layers[0].self_attn
        self._transformer = transformer
        self._filled = filled
        self.pages = pages
        self._capacity = first.context
        self.step: _Step | None = None
        if not first.causal or self._capacity is None or first.weights_per_step:
            raise ModelLoadError(
                "The model's attention looks ahead, or back without a bound, and cannot be streamed.",
                "Use a checkpoint of Moshi, Hibiki or Kyutai's speech-to-text.",
            )
        self._in_place = pages is not None and pages.in_place
        if not self._in_place:
            filled.add_ring(self._capacity)
        device = next(transformer.parameters()).device
        self._ring_index = torch.arange(self._capacity, device=device)
        self._place = self._ring_index // page_table.PAGE_FRAMES
        self._rope: RotaryEmbedding | None = first.rope
        if self._rope is not None:
            self._frequencies = _frequencies(self._rope, first.embed_dim // first.num_heads, device)
        for layer in layers:
            _Attention(layer.self_attn, self, stored)
        transformer.forward = self._forward  # type: ignore[method-assign]

    def _forward(self, x: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        transformer = self._transformer
        state = transformer._streaming_state
        self.step = None if state is None else self._begin(state.offsets, x.shape[1])
        made: torch.Tensor = type(transformer).forward(transformer, x, *arguments, **named)
        self.step = None
        return made

    def _begin(self, offsets: torch.Tensor, positions: int) -> _Step:
        """``offsets``: how many positions each row has had so far."""
        now = offsets[:, None] + self._ring_index[:positions]
        step: _Step = self._in_pages(now) if self._in_place else self._masked(now)
        step.rows = self._filled.rows
        if self._rope is not None:
            angles = self._frequencies * now[:, :, None, None].float()
            step.turn = _turns(torch.cos(angles), torch.sin(angles), self._rope.interleave)
        return step

    def _in_pages(self, now: torch.Tensor) -> _StepInPlace:
        """``now``: the positions of the step, int64, shape [rows, 1]."""
        assert self.pages is not None
        there, since = self.pages.at(now % self._capacity, self._capacity)
        least = self.pages.least(now.shape[0])
        return _StepInPlace(there, since.contiguous(), now[:, 0].contiguous(), least, self._capacity)

    def _masked(self, now: torch.Tensor) -> _MaskedStep:
        """``now``: the positions of the step, int64, shape [rows, positions]."""
        positions = now.shape[1]
        extent = self._filled.extent(self._capacity, positions)
        last = now[:, -1:]
        # How long ago an entry was written, if it was: what has been overwritten in this step is not there any more.
        age = ((last - self._ring_index[:extent]) % self._capacity)[:, None, None]
        index = now % self._capacity
        there: torch.Tensor | Places = index
        if self.pages is None:
            unseen = age > last[:, None, None]
        else:
            assert positions == 1, "a place is told for each row"
            there, since = self.pages.at(index, extent)
            unseen = last[:, None, None] - age < since[:, self._place[:extent]][:, None, None]
        if positions > 1:
            unseen = unseen | (age < (last - now)[:, None, :, None])
        step = _MaskedStep(unseen)
        step.extent = extent
        step.index = there
        return step


class _Attention:
    """Attention of one layer. Where it does not stream, the package's own."""

    def __init__(
        self, attention: StreamingMultiheadAttention, within: _Transformer, stored: torch.dtype | None
    ) -> None:
        self._attention = attention
        self._within = within
        self._stored = stored
        self._kv_heads = attention.num_heads // attention.kv_repeat
        self._width = attention.embed_dim // attention.num_heads
        attention.forward = self._forward  # type: ignore[method-assign]
        attention._init_streaming_state = self._new_state  # type: ignore[method-assign, assignment]

    def _new_state(self, rows: int) -> _RingState:
        """The package's is made for no rows, and therefore of no size, to learn what its ring is like."""
        like = type(self._attention)._init_streaming_state(self._attention, 0)
        assert like.kv_cache is not None
        pages = self._within.pages
        if pages is None:
            ring = Ring(like.kv_cache, rows) if self._stored is None else NarrowRing(like.kv_cache, rows, self._stored)
            return _RingState(rows, like.device, ring)
        count = pages.pages_of(rows)
        if self._stored is None:
            paged = PagedRing(like.kv_cache, count)
        else:
            paged = NarrowPagedRing(like.kv_cache, count, self._stored)
        pages.add(paged, self._attention.kv_repeat)
        return _RingState(rows, like.device, paged)

    def _forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        attention, step = self._attention, self._within.step
        if step is None:
            made: torch.Tensor = type(attention).forward(attention, query, key, value)
            return made
        state: Any = attention._streaming_state
        ring: Ring = state.kv_cache
        heads, kv_heads = attention.num_heads, self._kv_heads
        projected = attention.in_projs[0](query)
        rows, positions, _ = projected.shape
        split = projected.view(rows, positions, heads + 2 * kv_heads, self._width)
        turned, values = split[:, :, : heads + kv_heads], split[:, :, heads + kv_heads :]
        if attention.rope is not None:
            turned = _turned(turned, *step.turn, attention.rope.interleave)
        turned = turned.transpose(1, 2)
        queries, keys = turned[:, :heads], turned[:, heads:]
        ring.write(keys, values.transpose(1, 2), step.index, step.rows)
        seen = step.attend(queries, ring, attention.kv_repeat)
        together = seen.transpose(1, 2).reshape(rows, positions, heads * self._width)
        out: torch.Tensor = attention.out_projs[0](together)
        return out


def _frequencies(rope: RotaryEmbedding, width: int, device: torch.device) -> torch.Tensor:
    """Of each pair of numbers in a head, in radians a position (RoPE, https://arxiv.org/abs/2104.09864)."""
    pairs = torch.arange(width // 2, device=device, dtype=torch.float32)
    return torch.exp(pairs * (-math.log(rope.max_period) * 2 / width))


def _turns(cosine: torch.Tensor, sine: torch.Tensor, interleaved: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """By what a number and the other of its pair are multiplied: pairs are neighbours, or lie half a head apart."""
    if interleaved:
        return torch.stack([cosine, cosine], -1).flatten(-2), torch.stack([-sine, sine], -1).flatten(-2)
    return torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)


@torch_compile_lazy  # type: ignore[untyped-decorator]
def _turned(x: torch.Tensor, by_itself: torch.Tensor, by_other: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """RoPE. Products and their sum are those of the package, to the bit: a - b * c is a + b * -c."""
    width = x.shape[-1]
    numbers = x.float()
    if interleaved:
        others = numbers.view(*x.shape[:-1], width // 2, 2).flip(-1).flatten(-2)
    else:
        others = numbers.roll(width // 2, -1)
    rotated = numbers * by_itself + others * by_other
    return rotated.to(x.dtype)
