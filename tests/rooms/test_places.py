"""Places at the translator: how many a room has, who waits, and whose turn it is."""

from __future__ import annotations

from rtc_server.rooms.places import MOST, MOST_WAITING, Place, Places


def asked(places: Places, room: str, count: int) -> list[Place]:
    found = [places.ask(room) for _ in range(count)]
    return [place for place in found if place is not None]


def free(places: list[Place]) -> int:
    return sum(place.free.done() for place in places)


async def test_a_room_that_is_alone_has_half_and_what_more_it_wants_waits_within_bounds() -> None:
    places = Places()
    wanted = asked(places, "a", 2 * MOST_WAITING)
    assert (free(wanted), len(wanted)) == (MOST // 2, MOST // 2 + MOST_WAITING)
    assert places.take("a") is None


async def test_another_room_has_its_own_at_once_and_all_together_no_more_than_there_are() -> None:
    places = Places()
    rooms = [asked(places, str(number), MOST) for number in range(10)]
    counts = [free(each) for each in rooms]
    assert counts[:3] == [MOST // 2, MOST // 4, MOST // 8]
    assert sum(counts) == places.taken <= MOST


async def test_what_waits_comes_in_its_order_and_rooms_take_turns() -> None:
    places = Places()
    first = asked(places, "a", MOST)
    others = {room: asked(places, room, MOST) for room in ("b", "c")}
    had = {room: free(each) for room, each in others.items()}
    for place in first[: MOST // 2]:
        places.give_back(place)
    got = {room: free(each) - had[room] for room, each in others.items()}
    assert min(got.values()) > 0
    assert abs(free(others["b"]) - free(others["c"])) <= 1
    assert places.taken <= MOST
    for each in (first, *others.values()):
        assert [place.free.done() for place in each] == sorted((place.free.done() for place in each), reverse=True)


async def test_one_that_has_waited_in_vain_holds_up_none_behind_it() -> None:
    places = Places()
    wanted = asked(places, "a", MOST // 2 + 3)
    waiting = wanted[MOST // 2 :]
    places.give_back(waiting[0])
    waiting[1].free.cancel()
    places.give_back(wanted[0])
    assert not waiting[2].free.done(), "the place is that of one who has given up, and has not said so yet"
    places.give_back(waiting[1])
    assert waiting[2].free.done()
    for place in (*wanted[1 : MOST // 2], waiting[2]):
        places.give_back(place)
    assert places.taken == 0
    assert len(asked(places, "a", MOST)) == MOST
