"""Which pages of attention's memory each row has: one when it begins, another each time that it has filled one.

Owns the table and what becomes of it when pages run out: the row that has most forgets what is oldest in it, as if it
had a smaller context for as long as it takes to write as much again. Pure: knows no tensors, no device and no model. A
row's ring is cut into places of :data:`PAGE_FRAMES` frames; in each is a page, or none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

PAGE_FRAMES: Final = 64
"""5.12 s; of Moshi 7B in bfloat16, 32 MiB."""
RESERVE_FRAMES: Final = 1_500
"""120 s. Conversations are to remember so much of themselves: while another one could not, none is let in."""
NO_PAGE: Final = 0
"""What the table has where a row has no page. There is a page of this number, which is silent for ever."""
NEVER: Final = 2**24
"""From which frame on a place without a page holds something: more than a row ever has, and exact in float32."""


def places(capacity: int, page_frames: int = PAGE_FRAMES) -> int:
    """Into how many places a ring of so many frames is cut."""
    return -(-capacity // page_frames)


def newcomers(free: int, held: Sequence[int], reserve: int) -> int:
    """For how many more conversations there is room: each, like those that are there and have ``held`` so many pages,
    can come to ``reserve`` without another's having to forget. One at least, if none is there."""
    yet_to_grow = sum(max(0, reserve - each) for each in held)
    room = max(0, free - yet_to_grow) // reserve
    return room if held else max(1, room)


class PageTable:
    """``pages`` pages, numbered from 1, for ``slots`` rows whose rings have ``capacity`` frames each. There are as many
    as rows, at least.

    ``count``: how many. ``pages``: int64, shape [slots, places], the page in each place. ``since``: the same shape,
    from which frame of its row on a place holds something. ``heard``: how many frames each row has had.
    """

    def __init__(
        self,
        slots: int,
        capacity: int,
        pages: int,
        page_frames: int = PAGE_FRAMES,
        reserve_frames: int = RESERVE_FRAMES,
    ) -> None:
        assert pages >= slots, "each row has a page"
        self.count = pages
        self.capacity = capacity
        self._page_frames = page_frames
        self._reserve = places(min(capacity, reserve_frames), page_frames)
        self._free = deque(range(1, pages + 1))
        self.heard: npt.NDArray[np.int64] = np.zeros(slots, dtype=np.int64)
        shape = slots, places(capacity, page_frames)
        self.pages: npt.NDArray[np.int64] = np.full(shape, NO_PAGE, dtype=np.int64)
        self.since: npt.NDArray[np.int64] = np.full(shape, NEVER, dtype=np.int64)

    @property
    def free(self) -> int:
        return len(self._free)

    def of(self, row: int) -> list[int]:
        """The pages of a row."""
        found: list[int] = self.pages[row][self.pages[row] != NO_PAGE].tolist()
        return found

    def use(self, used: npt.NDArray[np.bool_]) -> tuple[int, int]:
        """How many pages are free when all rows but the ``used`` ones have given theirs back, and for how many more
        conversations there is room then."""
        held: list[int] = (self.pages[used] != NO_PAGE).sum(axis=1).tolist()
        free = self.count - sum(held)
        return free, newcomers(free, held, self._reserve)

    def advance(self, rows: npt.NDArray[np.bool_], frames: npt.NDArray[np.int64]) -> list[int]:
        """Make room for the next frame of these rows, which have had so many. Returns the pages that were taken from
        a conversation for it, and are to be wiped."""
        place = frames % self.capacity // self._page_frames
        self.heard[rows] = frames[rows] + 1
        lacking = rows & (self.pages[np.arange(len(place)), place] == NO_PAGE)
        taken = [self._give(row, int(place[row]), int(frames[row])) for row in np.flatnonzero(lacking).tolist()]
        return [page for page in taken if page is not None]

    def release(self, row: int) -> None:
        """Take back all that a row has, which is wiped."""
        self._free.extend(self.of(row))
        self.pages[row] = NO_PAGE
        self.since[row] = NEVER
        self.heard[row] = 0

    def adopt(self, row: int, since: Sequence[int], frames: int) -> list[int]:
        """Give a row that has none pages where another, which has had so many frames, had some. Returns as
        :meth:`advance`. Raises ValueError if no row can be like that."""
        there = [place for place, first in enumerate(since) if first != NEVER]
        whole = len(since) == self.since.shape[1] and 0 <= frames < NEVER
        if not whole or any(not 0 <= since[place] <= frames for place in there):
            raise ValueError("no row has such pages")
        self.heard[row] = frames
        # The oldest first: it is what is forgotten again where there is no room for all.
        there.sort(key=lambda place: self._age_rank(row, place))
        taken = [self._give(row, place, int(since[place])) for place in there]
        return [page for page in taken if page is not None]

    def _give(self, row: int, place: int, first: int) -> int | None:
        """Returns the page if it was another row's, or another place's."""
        taken = None if self._free else self._take_oldest(row)
        page = self._free.popleft() if taken is None else taken
        self.pages[row, place] = page
        self.since[row, place] = first
        return taken

    def _take_oldest(self, asking: int) -> int:
        """Of the row that has most: of the one that asks, where it is one of those."""
        held = (self.pages != NO_PAGE).sum(axis=1)
        row = asking if held[asking] == held.max() else int(held.argmax())
        places_of = np.flatnonzero(self.pages[row] != NO_PAGE).tolist()
        place = min(places_of, key=lambda place: self._age_rank(row, place))
        page = int(self.pages[row, place])
        self.pages[row, place] = NO_PAGE
        self.since[row, place] = NEVER
        return page

    def _age_rank(self, row: int, place: int) -> int:
        """The oldest place of a row comes first, and the one that it writes into last."""
        newest = max(0, int(self.heard[row]) - 1) % self.capacity // self._page_frames
        return (place - newest - 1) % int(self.pages.shape[1])
