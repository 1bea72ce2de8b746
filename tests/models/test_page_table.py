"""Pages of attention's memory: no two rows share one, none gets lost, and a row lacks only what is oldest in it, and
only if there are no pages left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtc_server.models.kyutai.page_table import NEVER, NO_PAGE, RESERVE_FRAMES, PageTable, newcomers, places

PAGE = 4


def grow(table: PageTable, row: int, begin: int, end: int) -> list[int]:
    """Have a row hear the frames from ``begin`` to ``end``. Returns the pages that were taken."""
    rows = np.arange(len(table.pages)) == row
    return [page for frame in range(begin, end) for page in table.advance(rows, np.full(len(rows), frame))]


def test_a_ring_is_cut_into_places() -> None:
    assert [places(frames, PAGE) for frames in (1, 4, 5, 16)] == [1, 1, 2, 4]
    assert places(3000) == 47


def test_a_row_has_a_page_for_each_that_it_has_begun() -> None:
    table = PageTable(2, 16, 8, PAGE)
    held = []
    for frame in range(40):
        assert not grow(table, 0, frame, frame + 1)
        held.append(len(table.of(0)))
    assert held == [min(4, frame // PAGE + 1) for frame in range(40)]
    assert table.since[0].tolist() == [0, 4, 8, 12]
    assert table.of(1) == []


def test_a_row_that_ends_gives_all_back() -> None:
    table = PageTable(2, 16, 8, PAGE)
    grow(table, 0, 0, 9)
    table.release(0)
    assert table.free == 8
    assert (table.pages == NO_PAGE).all()
    assert (table.since == NEVER).all()


def test_when_pages_run_out_the_longest_row_forgets_what_is_oldest() -> None:
    table = PageTable(2, 16, 5, PAGE)
    grow(table, 0, 0, 22)  # it has written the first two places once more
    grow(table, 1, 0, 4)
    oldest = int(table.pages[0, 2])
    assert grow(table, 1, 4, 5) == [oldest]
    assert table.since[0].tolist() == [0, 4, NEVER, 12]
    assert table.since[1].tolist() == [0, 4, NEVER, NEVER]


def test_a_row_that_is_the_longest_itself_takes_of_its_own() -> None:
    table = PageTable(2, 16, 3, PAGE)
    grow(table, 0, 0, 12)
    first = int(table.pages[0, 0])
    assert grow(table, 0, 12, 13) == [first]
    assert table.since[0].tolist() == [NEVER, 4, 8, 12]


def test_what_was_forgotten_is_written_again_when_its_place_comes() -> None:
    table = PageTable(1, 16, 2, PAGE)
    grow(table, 0, 0, 17)
    assert table.since[0].tolist() == [16, NEVER, NEVER, 12]


@pytest.mark.parametrize(
    ("free", "held", "room"),
    [
        (100, [], 4),
        (10, [], 1),  # the first one has all that there is
        (24, [24], 1),
        (24, [23], 0),  # one page of it is the other's
        (48, [0], 1),
        (47, [0], 0),
        (24, [47, 47], 1),  # what is more than its own reserve is no one's
        (0, [47], 0),
        (71, [30, 1, 24], 2),
    ],
)
def test_there_is_room_while_all_can_come_to_their_reserve(free: int, held: list[int], room: int) -> None:
    assert newcomers(free, held, 24) == room


def test_the_reserve_is_two_minutes_or_a_whole_ring() -> None:
    everyone = np.ones(2, dtype=np.bool_)
    assert places(RESERVE_FRAMES) == 24
    for capacity, reserve in ((3_000, 24), (750, 12)):
        for pages, room in ((3 * reserve - 1, 0), (3 * reserve, 1)):
            assert PageTable(2, capacity, pages).use(everyone) == (pages, room)


def test_what_rows_have_that_are_to_be_wiped_is_free() -> None:
    table = PageTable(3, 16, 12, PAGE)
    grow(table, 0, 0, 16)
    grow(table, 1, 0, 6)
    assert table.use(np.array([True, True, False])) == (6, 1)
    assert table.use(np.array([False, True, False])) == (10, 2)
    assert table.use(np.zeros(3, dtype=np.bool_)) == (12, 3)


@pytest.mark.parametrize(
    ("since", "frames"),
    [
        ([0], 10),
        ([0, 4, 8, 12, 16], 20),
        ([-1, NEVER, NEVER, NEVER], 10),
        ([99, NEVER, NEVER, NEVER], 10),
        ([NEVER] * 4, -1),
        ([NEVER] * 4, 2**62),
    ],
)
def test_what_no_row_can_have_is_not_adopted(since: list[int], frames: int) -> None:
    table = PageTable(1, 16, 4, PAGE)
    with pytest.raises(ValueError, match="no row has such pages"):
        table.adopt(0, since, frames)
    assert table.free == 4


class Pages(RuleBasedStateMachine):
    """Rows that come, grow, go and move, as they like."""

    @initialize(slots=st.integers(1, 4), capacity=st.integers(1, 20), spare=st.integers(0, 12))
    def begin(self, slots: int, capacity: int, spare: int) -> None:
        self.count = slots + spare
        self.capacity = capacity
        self.table = PageTable(slots, capacity, self.count, PAGE)
        self.frames = np.zeros(slots, dtype=np.int64)
        self.enough = self.count >= slots * places(capacity, PAGE)

    @rule(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 12))
    def hear(self, seed: int, steps: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            rows = rng.random(len(self.frames)) < 0.6
            free, held = self.table.free, {page for row in range(len(rows)) for page in self.table.of(row)}
            taken = self.table.advance(rows, self.frames)
            assert set(taken) <= held, "what was free is wiped already"
            assert not taken or len(taken) >= 1 > self.table.free
            assert free or self.table.free == 0
            self.frames[rows] += 1
            at = (self.frames - 1) % self.capacity // PAGE
            assert all(self.table.pages[row, at[row]] != NO_PAGE for row in np.flatnonzero(rows))

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        row = data.draw(st.integers(0, len(self.frames) - 1))
        self.table.release(row)
        self.frames[row] = 0

    @precondition(lambda self: len(self.frames) > 1)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """What one row has, another has as well: all of it, or what is newest."""
        row, other = data.draw(st.permutations(range(len(self.frames))))[:2]
        since, newest = self.table.since[row].tolist(), self.frames[row]
        self.table.release(other)
        self.table.adopt(other, since, int(newest))
        self.frames[other] = newest
        for place, first in enumerate(self.table.since[other].tolist()):
            assert first in (since[place], NEVER)
            assert first == since[place] or not self.enough

    @invariant()
    def no_page_is_lost_or_shared(self) -> None:
        held = [page for row in range(len(self.frames)) for page in self.table.of(row)]
        assert len(held) == len(set(held))
        assert len(held) + self.table.free == self.count
        assert all(1 <= page <= self.count for page in held)

    @invariant()
    def what_has_no_page_holds_nothing(self) -> None:
        assert ((self.table.pages == NO_PAGE) == (self.table.since == NEVER)).all()

    @invariant()
    def with_enough_pages_nothing_is_forgotten(self) -> None:
        if self.enough:
            held = [len(self.table.of(row)) for row in range(len(self.frames))]
            assert held == [places(min(int(frames), self.capacity), PAGE) for frames in self.frames]


class Admitted(RuleBasedStateMachine):
    """Conversations that are let in while there is room, grow and end, as they like: each has all of its newest pages
    as far as the reserve goes, whatever the others have."""

    @initialize(
        slots=st.integers(1, 6), capacity=st.integers(1, 24), spare=st.integers(0, 30), reserve=st.integers(1, 24)
    )
    def begin(self, slots: int, capacity: int, spare: int, reserve: int) -> None:
        self.reserve = places(min(reserve, capacity), PAGE)
        self.table = PageTable(slots, capacity, slots + spare, PAGE, reserve)
        self.used = np.zeros(slots, dtype=np.bool_)
        self.frames = np.zeros(slots, dtype=np.int64)
        self.short = slots + spare < self.reserve  # the only one there is has less than that

    @rule()
    def come(self) -> None:
        if not self.used.all() and self.table.use(self.used)[1]:
            self.used[int(self.used.argmin())] = True

    @rule(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 30))
    def hear(self, seed: int, steps: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            rows = self.used & (rng.random(len(self.used)) < 0.7)
            self.table.advance(rows, self.frames)
            self.frames[rows] += 1

    @precondition(lambda self: self.used.any())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(np.flatnonzero(self.used).tolist()))
        self.table.release(row)
        self.used[row], self.frames[row] = False, 0

    @invariant()
    def none_is_kept_from_its_reserve(self) -> None:
        for row in np.flatnonzero(self.used).tolist():
            begun = places(min(int(self.frames[row]), self.table.capacity), PAGE)
            assert self.short or len(self.table.of(row)) >= min(begun, self.reserve)


Admitted.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_admitted = Admitted.TestCase

Pages.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_pages = Pages.TestCase
