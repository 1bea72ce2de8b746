"""Limits are of all processes of a server: what one holds, the others count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rtc_server.access.principals import ANONYMOUS, Visitor
from rtc_server.services import SERVICES
from rtc_server.sessions import places
from rtc_server.sessions.places import Nowhere, SharedPlaces
from rtc_server.system.shared_file import SharedFile

MOST = 4


@dataclass(eq=False)
class Held:
    address: str = "192.0.2.1"
    service: str = "dialogue"
    connecting: bool = False
    awaits_slot: bool = False

    @property
    def visitor(self) -> Visitor:
        return Visitor(ANONYMOUS, self.address)


class Processes:
    def __init__(self, directory: Path) -> None:
        self._path = directory / "shared"
        SharedFile.create(self._path, 64 + places.size(3, MOST)).close()
        self.files: list[SharedFile] = []

    def start(self, worker: int) -> SharedPlaces:
        self.files.append(SharedFile(self._path))
        return SharedPlaces(self.files[-1], worker, 3, MOST, SERVICES, offset=64)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    for file in made.files:
        file.close()


def test_each_counts_what_the_others_hold(processes: Processes) -> None:
    a, b, c = map(processes.start, range(3))
    held = [Held(), Held("192.0.2.2"), Held("2001:db8::/64", "echo", connecting=True)]
    for place in held:
        b.enter(place)
    a.enter(Held())
    assert [len(one) for one in (a, b, c)] == [3, 1, 4]
    assert [a.count_of("192.0.2.1"), b.count_of("192.0.2.1"), c.count_of("192.0.2.1")] == [1, 1, 2]
    assert a.connecting_of("2001:db8::/64") == ["echo"]
    assert a.connecting_of("192.0.2.2") == []
    assert (a.awaiting(), a.awaiting_of("192.0.2.2")) == (0, 0)
    assert [one.held() for one in (a, b, c)] == [[1, 3, 0]] * 3
    for place in held:
        b.leave(place)
        b.leave(place)
    assert [len(a), len(b)] == [0, 1]


def test_a_client_that_is_there_connects_no_more(processes: Processes) -> None:
    a, b, place = processes.start(0), processes.start(1), Held(connecting=True)
    a.enter(place)
    assert b.connecting_of(place.address) == ["dialogue"]
    place.connecting = False
    a.refresh()
    assert (b.connecting_of(place.address), b.count_of(place.address)) == ([], 1)


def test_a_session_that_waits_for_a_model_is_counted_as_such_until_there_is_one(processes: Processes) -> None:
    a, b, place = processes.start(0), processes.start(1), Held(connecting=True, awaits_slot=True)
    a.enter(place)
    assert (b.awaiting(), b.awaiting_of(place.address), b.awaiting_of("192.0.2.9")) == (1, 1, 0)
    place.awaits_slot = False
    a.refresh()
    assert (b.awaiting(), b.awaiting_of(place.address), len(b)) == (0, 0, 1)


def test_what_a_process_held_that_was_killed_is_free_when_another_takes_its_place(processes: Processes) -> None:
    a, b = processes.start(0), processes.start(1)
    a.enter(Held())
    assert len(b) == 1
    processes.start(0)
    assert len(b) == 0


def test_more_than_there_are_rows_for_changes_nothing(processes: Processes) -> None:
    a, b = processes.start(0), processes.start(1)
    held = [Held() for _ in range(MOST + 2)]
    for place in held:
        a.enter(place)
    assert len(b) == MOST
    for place in held:
        a.leave(place)
    assert len(b) == 0


def test_one_process_has_no_others() -> None:
    nowhere = Nowhere()
    nowhere.enter(Held())
    nowhere.leave(Held())
    nowhere.refresh()
    assert (nowhere.awaiting(), nowhere.awaiting_of("192.0.2.1")) == (0, 0)
    assert (len(nowhere), nowhere.count_of("192.0.2.1"), nowhere.connecting_of("192.0.2.1")) == (0, 0, [])
