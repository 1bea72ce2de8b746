"""Attention's memory in pages, on a device: the table of the host, told to each step, and the pages themselves.

Owns the numbers that a step is told (which page is in each place of a row, from which frame on it holds something, and
where the row writes), the wiping of pages, and a row's part of them. Which row has which, the table decides
(:mod:`rtc_server.models.kyutai.page_table`). Beside the pages of rows there are two: one is silent for ever, and is
read where a row has none; into the other goes what rows write that take no part in a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from moshi.models.lm import LMModel

from rtc_server.engine.model import BoolArray, FloatArray
from rtc_server.errors import ModelLoadError
from rtc_server.models.kyutai import page_attention, page_table
from rtc_server.models.kyutai.kv_cache import PagedRing, Places
from rtc_server.models.kyutai.page_table import NEVER, NO_PAGE, PageTable, places
from rtc_server.models.kyutai.row_state import RowPart


class Pages:
    """``count`` pages for ``slots`` rows, each of which may fill a ring of ``capacity`` frames."""

    def __init__(self, slots: int, capacity: int, count: int, *, in_place: bool = False) -> None:
        """``in_place``: whether attention reads them where they are, or in a copy."""
        self.in_place = in_place
        self.table = PageTable(slots, capacity, count, page_table.PAGE_FRAMES)
        self.slots = slots
        self.capacity = capacity
        self.rings: list[PagedRing] = []
        self._places = places(capacity, page_table.PAGE_FRAMES)
        self._each = count + 2
        self._nowhere = count + 1
        self._told = torch.zeros((slots, self.width))
        self._written = np.zeros((slots, self.width), dtype=np.float32)
        self.rows = slots
        """Of the next step."""
        self._repeat = 1
        self._least = 0

    @property
    def width(self) -> int:
        """How many numbers a row is told in each step."""
        return 2 * self._places + 2

    @property
    def pages_a_slot(self) -> int:
        """How many one can fill."""
        return self._places

    def pages_of(self, rows: int) -> int:
        """How many a ring of so many rows of a batch has: those of each slot are as many times there as it has
        rows."""
        return self._each * (rows // self.slots)

    def add(self, ring: PagedRing, repeat: int) -> None:
        """One of a layer of which so many heads share keys and values."""
        self.rings.append(ring)
        self._repeat = max(self._repeat, repeat)

    def read_from(self, told: torch.Tensor) -> None:
        """Where steps find what :meth:`prepare` wrote: float32, shape [slots, width], in one place for life."""
        self._told = told

    def prepare(
        self,
        active: BoolArray,
        frames: npt.NDArray[np.int64],
        told: FloatArray,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Make room for a step of the active rows, which have had so many frames, and write into ``told``, shape
        [slots, width], what it has to know. ``rows``: those that it computes, in this order, if not all."""
        self._tell(active, frames, told if rows is None else self._written)
        self.rows = self.slots if rows is None else len(rows)
        if rows is not None:
            np.take(self._written, rows, axis=0, out=told[: self.rows])

    def _tell(self, active: BoolArray, frames: npt.NDArray[np.int64], told: FloatArray) -> None:
        self.wipe(self.table.advance(active, frames))
        # As the table counts them, which knows of a row that comes from elsewhere before all of it is here.
        now = self.table.heard - active
        everyone, place = np.arange(self.slots), now % self.capacity // page_table.PAGE_FRAMES
        told[:, : self._places] = self.table.pages
        told[:, self._places : -2] = self.table.since
        page = self.table.pages[everyone, place]
        lacking = page == NO_PAGE
        told[:, -2] = np.where(lacking, self._nowhere, page)
        told[:, -1] = self._least
        # A row sees something in each step, be it silence: of nothing at all, a softmax makes NaN.
        told[lacking, self._places + place[lacking]] = now[lacking]
        if self._least:
            # As if each had its own: what many read would not come from the device's memory.
            spread = 1 + np.arange(self.slots * self._places).reshape(self.slots, -1) % (self._each - 2)
            told[:, : self._places] = np.where(told[:, self._places : -2] == NEVER, spread, told[:, : self._places])
        if self.in_place:  # where nothing seen is no NaN: what rows remember that take no part is not read
            told[~active, self._places : -2] = NEVER
            told[~active, -1] = 0

    def at(self, index: torch.Tensor, extent: int) -> tuple[Places, torch.Tensor]:
        """Where the step's positions go that belong at ``index`` of rings, int64, shape [rows, 1]; and from which
        frame on the first places of each row hold something, int64, shape [rows, places read]: as many as an extent
        of so many frames is in."""
        read = places(extent, page_table.PAGE_FRAMES)
        told = self._told[: self.rows].long()
        copies = index.shape[0] // self.rows
        pages, since, page = told[:, :read], told[:, self._places : self._places + read], told[:, -2:-1]
        if copies > 1:
            pages, page = (torch.cat([each + copy * self._each for copy in range(copies)]) for each in (pages, page))
            since = since.repeat(copies, 1)
        entries = page * page_table.PAGE_FRAMES + index % page_table.PAGE_FRAMES
        return Places(pages.contiguous(), entries), since

    def read_at_least(self, frames: int) -> None:
        """Have so many frames of each row be read in place, seen or not, from the next step on."""
        self._least = min(frames, self.capacity) if self.in_place else 0

    def least(self, rows: int) -> torch.Tensor:
        """How many that are, of each row: int64, shape [rows]."""
        return self._told[: self.rows, -1].long().repeat(rows // self.rows)

    @property
    def page_bytes(self) -> int:
        """Of one, in all layers, once the rings are there."""
        return sum(ring.cache.numel() * ring.cache.element_size() // self._each for ring in self.rings)

    @property
    def working_bytes(self) -> int:
        """What reading takes of all rows as far as they go, for one layer at a time: a copy, unless it is in place."""
        most = 0
        for ring in self.rings:
            _, heads, held, _, width = ring.cache.shape
            copies = held // self._each
            if self.in_place:
                rows, heads = self.slots * copies, heads * self._repeat
                most = max(most, page_attention.working_bytes(rows, heads, width, self._places))
                continue
            of_a_page = ring.cache[:, :, 0].numel() * ring.cache.element_size()
            most = max(most, of_a_page * self.slots * copies * self._places)
        return most

    def widened_bytes(self, dtype: torch.dtype) -> int:
        """What it takes besides to widen that to a type to compute with."""
        if self.in_place:
            return 0
        return self.working_bytes // self.rings[0].cache.element_size() * dtype.itemsize

    def release(self, rows: list[int]) -> None:
        """Wipe all that these rows have, and take it back."""
        self.wipe([page for row in rows for page in self.table.of(row)])
        for row in rows:
            self.table.release(row)

    def wipe(self, pages: list[int]) -> None:
        """Whatever was there, NaN included."""
        if not pages:
            return
        for ring in self.rings:
            copies = range(0, ring.cache.shape[2], self._each)
            index = torch.tensor([page + copy for copy in copies for page in pages], device=ring.cache.device)
            ring.cache.index_fill_(2, index, 0)

    def parts(self) -> list[RowPart]:
        """A row's part of them, in the order in which it has to be put: where it has pages comes first."""
        return [_Held(self), *(_InRing(self, number, ring) for number, ring in enumerate(self.rings))]

    def index(self, ring: PagedRing, row: int) -> torch.Tensor:
        """The pages of a row in a ring, int64, shape [copies, places]; the silent one where it has none."""
        copies = torch.arange(0, ring.cache.shape[2], self._each)
        return (torch.from_numpy(self.table.pages[row]) + copies[:, None]).to(ring.cache.device)


def pages_for(lm: LMModel, slots: int, count: int, *, in_place: bool = False) -> Pages | None:
    """``count`` pages for attention of ``lm``, or as many as it can fill; None for 0. Raises ModelLoadError for fewer
    than there are slots. ``in_place``: whether a kernel reads them where they are (:mod:`page_attention
    <rtc_server.models.kyutai.page_attention>`)."""
    layers: Any = lm.transformer.layers
    capacity: int | None = layers[0].self_attn.context
    if not count or capacity is None:
        return None
    if count < slots:
        raise ModelLoadError(
            f"{count} pages are too few for {slots} slots: each has one at least.", "Use more pages, or fewer slots."
        )
    return Pages(slots, capacity, min(count, slots * places(capacity, page_table.PAGE_FRAMES)), in_place=in_place)


class _Held:
    """In which places a row has pages, from which frame on, and how many frames it has had: the last number."""

    path = "pages"
    dtype = torch.int64
    device = torch.device("cpu")

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self.row_shape = [pages.table.since.shape[1] + 1]

    def copy(self, slots: int, row: int) -> torch.Tensor:
        table = self._pages.table
        return torch.from_numpy(np.append(table.since[row], table.heard[row]))

    def put(self, slots: int, row: int, value: torch.Tensor) -> None:
        *since, heard = value.tolist()
        self._pages.wipe(self._pages.table.adopt(row, since, heard))


class _InRing:
    """What a row has in one ring: zeros where it has no pages."""

    def __init__(self, pages: Pages, number: int, ring: PagedRing) -> None:
        _, heads, held, frames, width = ring.cache.shape
        self._pages = pages
        self._ring = ring
        self.path = f"pages.{number}"
        self.dtype = ring.cache.dtype
        self.device = ring.cache.device
        self.row_shape = [2, heads, held // pages.pages_of(pages.slots), pages.table.since.shape[1], frames, width]

    def copy(self, slots: int, row: int) -> torch.Tensor:
        index = self._pages.index(self._ring, row)
        return self._ring.cache.index_select(2, index.flatten()).view(self.row_shape)

    def put(self, slots: int, row: int, value: torch.Tensor) -> None:
        index = self._pages.index(self._ring, row)
        there = torch.from_numpy(self._pages.table.pages[row] != NO_PAGE).to(index.device)
        self._ring.cache.index_copy_(2, index[:, there].flatten(), value[:, :, :, there].flatten(2, 3))
