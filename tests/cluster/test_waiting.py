"""How many clients wait, of those that were told to come back."""

from __future__ import annotations

from rtc_server.cluster.waiting import Waiting


def test_clients_that_were_refused_wait_until_they_should_have_come_back() -> None:
    waiting = Waiting()
    for _ in range(3):
        waiting.refused(10, now=0)
    assert [waiting.count(now) for now in (0, 10, 13)] == [3, 3, 3]
    assert waiting.count(13.1) == 0


def test_one_that_comes_back_and_is_refused_again_is_one() -> None:
    waiting = Waiting()
    waiting.refused(10, now=0)
    waiting.refused(10, now=1)
    waiting.refused(5, now=10.2)
    assert waiting.count(10.2) == 2
    assert waiting.count(14.1) == 1
    assert waiting.count(18.3) == 0


def test_one_that_has_its_slot_waits_no_more() -> None:
    waiting = Waiting()
    waiting.refused(10, now=0)
    waiting.served()
    waiting.served()
    assert waiting.count(1) == 0
