"""How many engines there are, which are stopped, and which take the next conversation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.cluster.policy import Decision, EngineView, Phase, Room, Terms, decide, order


def ready(name: str, used: int = 0, idle_s: float = 0.0, slots: int = 4, managed: bool = True) -> EngineView:
    return EngineView(name, Phase.READY, slots, used, idle_s, managed)


STARTING = EngineView("new", Phase.STARTING)


@pytest.mark.parametrize(
    ("terms", "engines", "waiting", "slots", "start"),
    [
        (Terms(0, 4), [], 0, None, 0),  # nothing is asked for: nothing is there
        (Terms(0, 4), [], 200, None, 1),  # how many slots an engine has is not known: the first tells
        (Terms(0, 4), [STARTING], 200, None, 0),
        (Terms(0, 4), [], 200, 4, 4),  # as many as there may be, at once
        (Terms(0, 100), [], 200, 4, 50),
        (Terms(2, 4), [], 0, None, 2),
        (Terms(1, 4, spare_slots=1), [ready("a", 3)], 0, 4, 0),
        (Terms(1, 4, spare_slots=1), [ready("a", 4)], 0, 4, 1),
        (Terms(1, 4, spare_slots=1), [ready("a", 4), STARTING], 0, 4, 0),
        (Terms(1, 4, spare_slots=5), [ready("a", 4), STARTING], 0, 4, 1),
        (Terms(0, 2), [ready("a", 4), EngineView("b", Phase.DRAINING, 4, 1)], 9, 4, 0),  # one drains, and has its GPU
        (Terms(0, 1), [ready("a", 4), ready("by hand", 4, managed=False)], 9, 4, 0),  # more than there may be
    ],
)
def test_what_is_missing_is_started_at_once(
    terms: Terms, engines: list[EngineView], waiting: int, slots: int | None, start: int
) -> None:
    assert decide(terms, engines, waiting, slots) == Decision(start)


@pytest.mark.parametrize(
    ("terms", "engines", "waiting", "stop"),
    [
        (Terms(0, 4), [ready("a", idle_s=299)], 0, ()),
        (Terms(0, 4), [ready("a", idle_s=300)], 0, ("a",)),
        (Terms(1, 4), [ready("a", idle_s=300)], 0, ()),
        (Terms(1, 4), [ready("a", idle_s=300), ready("b", idle_s=900)], 0, ("b",)),
        (Terms(0, 4), [ready("a", 1, idle_s=0), ready("b", idle_s=900)], 0, ("b",)),
        (Terms(0, 4, spare_slots=4), [ready("a", 1), ready("b", idle_s=900)], 0, ()),
        (Terms(0, 4, spare_slots=3), [ready("a", 1), ready("b", idle_s=900)], 0, ("b",)),
        (Terms(0, 4), [ready("a", idle_s=900)], 1, ()),
        (Terms(0, 4), [ready("a", idle_s=900, managed=False)], 0, ()),
        (Terms(0, 4), [EngineView("a", Phase.DRAINING, 4, 0, 900)], 0, ()),
        (Terms(0, 4), [STARTING], 0, ()),
    ],
)
def test_only_what_has_long_been_empty_is_stopped(
    terms: Terms, engines: list[EngineView], waiting: int, stop: tuple[str, ...]
) -> None:
    assert decide(terms, engines, waiting, 4) == Decision(0, stop)


@given(
    least=st.integers(0, 5),
    more=st.integers(0, 10),
    spare=st.integers(0, 20),
    waiting=st.integers(0, 100),
    slots=st.integers(1, 8),
    in_use=st.lists(st.integers(0, 8), max_size=8),
)
def test_it_comes_to_what_is_wanted(
    least: int, more: int, spare: int, waiting: int, slots: int, in_use: list[int]
) -> None:
    """``ceil((used + waiting + spare) / slots)``, within the bounds: neither more nor less, where engines are alike and
    what is empty has been for long."""
    terms = Terms(least, max(1, least + more), spare, 300.0)
    used = [min(each, slots) for each in in_use][: terms.most]
    engines = [ready(str(number), each, 0 if each else 300, slots) for number, each in enumerate(used)]
    decision = decide(terms, engines, waiting, slots)
    want = min(terms.most, max(least, math.ceil((sum(used) + waiting + spare) / slots)))
    there = len(engines) + decision.start - len(decision.stop)
    assert there == max(want, sum(1 for each in used if each))
    assert not (decision.start and decision.stop)
    assert not any(used[int(name)] for name in decision.stop)


def test_the_fullest_engine_with_room_is_asked_first() -> None:
    rooms = [Room("empty", 4, 0), Room("full", 4, 4), Room("nearly full", 4, 3), Room("half", 4, 2)]
    assert order(rooms) == ["nearly full", "half", "empty"]


def test_engines_that_seem_full_are_asked_last_and_not_all() -> None:
    rooms = [Room("a", 4, 4), Room("b", 4, 5), Room("c", 4, 4), Room("d", 4, 1)]
    assert order(rooms, full=2) == ["d", "b", "a"]
    assert order([], full=2) == []
