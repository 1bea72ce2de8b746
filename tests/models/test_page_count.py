"""How many pages there are follows the memory that is free: never fewer than slots, never more than all can fill."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtc_server.models.kyutai.page_count import (
    DeviceMemory,
    PagedNeeds,
    left_by_others,
    pages_that_fit,
    reserve_bytes,
    room_for_pages,
)

GIB, MIB = 2**30, 2**20
MOSHI = PagedNeeds(slots=64, pages_a_slot=47, page_bytes=32 * MIB, weights_bytes=15 * GIB, rest_bytes=8 * GIB)


def test_what_is_free_is_filled_to_the_byte() -> None:
    """But for the rest of the model, and for the reserve: 2 GiB with 64 slots."""
    assert reserve_bytes(64) == 2 * GIB
    free = 10 * GIB + 1_000 * 32 * MIB
    assert pages_that_fit(MOSHI, free) == room_for_pages(MOSHI, free) == 1_000
    assert pages_that_fit(MOSHI, free - 1) == 999


def test_each_slot_has_a_page_even_where_there_is_room_for_none() -> None:
    assert room_for_pages(MOSHI, 0) == 0
    assert pages_that_fit(MOSHI, 0) == 64


def test_there_are_no_more_than_all_slots_can_fill() -> None:
    assert room_for_pages(MOSHI, 1_000 * GIB) > pages_that_fit(MOSHI, 1_000 * GIB) == 64 * 47


def test_others_are_left_theirs_whether_they_are_there_or_not() -> None:
    """10 of 80 GiB for them: before they have come, while half of them has, and when all has."""
    left = [left_by_others(MOSHI, DeviceMemory(free * GIB, 80 * GIB), 10 * GIB) for free in (65, 60, 55)]
    assert left == [55 * GIB] * 3
    assert left_by_others(MOSHI, DeviceMemory(40 * GIB, 80 * GIB), 10 * GIB) == 40 * GIB, "what strangers hold is gone"
    assert left_by_others(MOSHI, DeviceMemory(40 * GIB), 10 * GIB) == 30 * GIB


@given(
    slots=st.integers(1, 256),
    pages_a_slot=st.integers(1, 100),
    page=st.integers(1, 2**26),
    rest=st.integers(0, 2**34),
    free=st.integers(0, 2**38),
)
def test_no_page_is_given_that_is_not_there(slots: int, pages_a_slot: int, page: int, rest: int, free: int) -> None:
    needs = PagedNeeds(slots, pages_a_slot, page, 0, rest)
    count = pages_that_fit(needs, free)
    assert slots <= count <= slots * pages_a_slot
    taken = rest + reserve_bytes(slots) + count * page
    assert taken <= free or count == slots
    assert count == slots * pages_a_slot or taken + page > free
