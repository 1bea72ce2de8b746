"""What attention remembers of each row: keys and values in rings, written at an index, read as far as they are filled.

Owns how numbers are stored, in the type that the model computes in or in a narrower one: less memory for a session, at
the price of rounding. Knows no positions and no masks. Writes are in place and nothing waits for the device, so that a
step can be captured as a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from moshi.models.lm import LMModel
from moshi.modules.transformer import RingKVCache

from rtc_server.models.kyutai import page_table
from rtc_server.models.kyutai.options import KvDtype

_STORED: Final[dict[str, torch.dtype]] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8": torch.float8_e4m3fn,
}


def stored_as(kv_dtype: KvDtype) -> torch.dtype | None:
    """The type to store keys and values in; None for the one that they come in."""
    return None if kv_dtype == "auto" else _STORED[kv_dtype]


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of a batch a step computes. ``index``: int64, shape [copies, rows of the step], where each is in a
    ring, once for each of its copies there. ``span``: the same, where they lie together and the host has the ring."""

    index: torch.Tensor
    span: slice | None = None

    def among(self, count: int) -> torch.Tensor | slice:
        """Where ``count`` rows of a step are, its copies counted."""
        if self.span is not None:
            return self.span
        return self.index[: count // self.index.shape[1]].flatten()


class Ring:
    """Keys and values of one layer. ``cache``: shape [2, rows, heads, capacity, width], zero when fresh."""

    def __init__(self, like: RingKVCache, rows: int, kept: torch.dtype | None = None) -> None:
        """``like``: the package's own, of any number of rows; ``kept``: another type of tensor than its."""
        _, _, heads, self.capacity, width = like.cache.shape
        shape = (2, rows, heads, self.capacity, width)
        self.cache = torch.zeros(shape, dtype=kept or like.cache.dtype, device=like.cache.device)

    def write(
        self, keys: torch.Tensor, values: torch.Tensor, index: torch.Tensor | Places, rows: Rows | None = None
    ) -> None:
        """Write both, of shape [rows, heads, positions, width], at ``index``, int64, shape [rows, positions]. ``rows``:
        which of the ring's these are, if not all."""
        assert isinstance(index, torch.Tensor)
        among = slice(None) if rows is None else rows.among(len(keys))
        if isinstance(among, torch.Tensor):
            for ring, what in zip(self.cache, (keys, values), strict=True):
                ring.transpose(1, 2).index_put_((among[:, None], index), what.transpose(1, 2))
            return
        there = index[:, None, :, None].expand(keys.shape)
        self.cache[0, among].scatter_(2, there, keys)
        self.cache[1, among].scatter_(2, there, values)

    def read(
        self, extent: int, dtype: torch.dtype, index: torch.Tensor | Places, rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The first ``extent`` keys and values of each row, [rows, heads, extent, width], to compute with in
        ``dtype``. ``index`` and ``rows`` as it was written at. A copy, if rows lie apart."""
        assert isinstance(index, torch.Tensor)
        among = slice(None) if rows is None else rows.among(len(index))
        if isinstance(among, torch.Tensor):
            keys, values = (each[:, :, :extent].index_select(0, among) for each in self.cache)
            return keys, values
        return self.cache[0, among, :, :extent], self.cache[1, among, :, :extent]


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows of rings are among pages, in one step. ``pages``: int64, shape [rows, places], those to be read from,
    each for :data:`~rtc_server.models.kyutai.page_table.PAGE_FRAMES` frames. ``entries``: int64, shape [rows,
    positions], where the step's own positions go, counted in frames from the first page's beginning."""

    pages: torch.Tensor
    entries: torch.Tensor


class PagedRing(Ring):
    """Keys and values of one layer in pages, which rows have as they grow. ``cache``: shape [2, heads, pages, frames of
    a page, width], zero when fresh. Which pages a row has is said at each call."""

    def __init__(self, like: RingKVCache, pages: int, kept: torch.dtype | None = None) -> None:
        """``pages``: how many, those that no row has included."""
        _, _, heads, self.capacity, width = like.cache.shape
        shape = (2, heads, pages, page_table.PAGE_FRAMES, width)
        self.cache = torch.zeros(shape, dtype=kept or like.cache.dtype, device=like.cache.device)

    def write(
        self, keys: torch.Tensor, values: torch.Tensor, index: torch.Tensor | Places, rows: Rows | None = None
    ) -> None:
        """``index`` says it all."""
        assert isinstance(index, Places)
        entries = index.entries.flatten()
        for there, what in zip(self.cache.flatten(2, 3), (keys, values), strict=True):
            there.index_copy_(1, entries, what.transpose(0, 1).flatten(1, 2))

    def read(
        self, extent: int, dtype: torch.dtype, index: torch.Tensor | Places, rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy: working memory for one layer at a time."""
        assert isinstance(index, Places)
        _, heads, _, _, width = self.cache.shape
        count, pages = len(index.pages), index.pages.flatten()
        keys, values = (
            each.index_select(1, pages).view(heads, count, -1, width).transpose(0, 1)[:, :, :extent]
            for each in self.cache
        )
        return keys, values


class NarrowRing(Ring):
    """A ring that stores keys and values as ``stored`` and gives them back in the type that they came in.

    What is read of a layer is widened: working memory for one layer at a time.
    """

    def __init__(self, like: RingKVCache, rows: int, stored: torch.dtype) -> None:
        # Few operations know eight bits: they are kept as what they are, and read as what they mean. Zero is zero.
        super().__init__(like, rows, torch.uint8 if stored.itemsize == 1 else stored)
        self._stored = stored
        self._largest = torch.finfo(stored).max

    def write(
        self, keys: torch.Tensor, values: torch.Tensor, index: torch.Tensor | Places, rows: Rows | None = None
    ) -> None:
        super().write(self._narrow(keys), self._narrow(values), index, rows)

    def read(
        self, extent: int, dtype: torch.dtype, index: torch.Tensor | Places, rows: Rows | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = super().read(extent, dtype, index, rows)
        return keys.view(self._stored).to(dtype), values.view(self._stored).to(dtype)

    def _narrow(self, values: torch.Tensor) -> torch.Tensor:
        """Clamp to the largest finite value: float8 has no infinity, only NaN."""
        if self._largest < torch.finfo(values.dtype).max:
            values = values.clamp(-self._largest, self._largest)
        return values.to(self._stored).view(self.cache.dtype)


class NarrowPagedRing(NarrowRing, PagedRing):
    """Pages that store as ``stored``."""


def widened_bytes(lm: LMModel) -> int:
    """Working memory that reading narrow rings of ``lm``, which is streaming, takes for all rows; 0 without any. What
    is read of pages, is copied and counted with them."""
    states = lm.get_streaming_state().values()
    rings = [ring for state in states if isinstance(ring := getattr(state, "kv_cache", None), NarrowRing)]
    return max((ring.cache.numel() * lm.dtype.itemsize for ring in rings), default=0)
