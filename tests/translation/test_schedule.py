"""Pairs of languages take turns, share batches, and stop each other as little as can be."""

from __future__ import annotations

from rtc_server.translation.model import Utterance
from rtc_server.translation.schedule import Schedule, Waiting


def waiting(number: int, source: str = "en", target: str = "pt", until_s: float = 100.0) -> Waiting:
    return Waiting(number, until_s, Utterance(source, target, "x"))


def numbers(jobs: list[Waiting]) -> list[int]:
    return [job.number for job in jobs]


def filled(schedule: Schedule, *jobs: Waiting) -> Schedule:
    for job in jobs:
        schedule.add(job)
    return schedule


def test_a_batch_is_of_one_pair_in_the_order_in_which_it_came() -> None:
    jobs = (waiting(1), waiting(2, "pt", "en"), waiting(3), waiting(4))
    schedule = filled(Schedule(batch=2, at_once=2), *jobs)
    assert numbers(schedule.begin()) == [1, 3]
    assert numbers(schedule.begin()) == [2]
    assert schedule.begin() == []  # no thread is free
    schedule.end(("en", "pt"))
    assert numbers(schedule.begin()) == [4]
    schedule.end(("en", "pt"))
    assert schedule.begin() == []


def test_pairs_take_turns() -> None:
    schedule = filled(Schedule(1, 1), *(waiting(n) for n in range(3)), waiting(10, "de"), waiting(11, "de"))
    order = []
    while jobs := schedule.begin():
        order += numbers(jobs)
        schedule.end(jobs[0].pair)
    assert order == [0, 10, 1, 11, 2]


def test_one_pair_has_no_more_than_half_of_the_threads() -> None:
    schedule = filled(Schedule(1, 4), *(waiting(n) for n in range(5)))
    assert [numbers(schedule.begin()) for _ in range(3)] == [[0], [1], []]
    assert numbers(filled(schedule, waiting(10, "de")).begin()) == [10]
    schedule.end(("en", "pt"))
    assert numbers(schedule.begin()) == [2]


def test_what_is_late_or_forgotten_is_not_begun() -> None:
    schedule = filled(Schedule(8, 1), waiting(1, until_s=5.0), waiting(2), waiting(3), waiting(4, "de", until_s=7.0))
    assert numbers(schedule.overdue(4.9)) == []
    assert numbers(schedule.overdue(7.0)) == [1, 4]
    assert schedule.forget(2)
    assert not schedule.forget(2)
    assert not schedule.forget(1)
    assert numbers(schedule.begin()) == [3]
    assert schedule.overdue(1000.0) == []  # what runs, runs
