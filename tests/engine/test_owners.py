"""Who holds an engine's slots: silence is counted while it is watched, and too much of it is the end."""

from __future__ import annotations

import pytest

from rtc_server.config import EngineSettings
from rtc_server.engine.owners import GRACE_S, HOST, LOOK_S, MAX_OWNERS, Owners


def looked(owners: Owners, since: float, until: float) -> list[bytes]:
    """Who is forgotten while the owners are looked at as often as they should be."""
    gone: list[bytes] = []
    for number in range(round((until - since) / LOOK_S) + 1):
        gone += owners.look(since + number * LOOK_S)
    return gone


def test_the_setting_says_what_is_meant() -> None:
    assert EngineSettings().engine_grace_s == GRACE_S


def test_the_process_that_started_the_engine_is_always_known() -> None:
    owners = Owners()
    assert HOST in owners
    assert not owners.watched
    assert looked(owners, 0, 10 * GRACE_S) == []
    assert list(owners) == [HOST]


def test_one_that_is_silent_for_too_long_is_forgotten() -> None:
    owners = Owners(10)
    assert owners.greet(b"a")
    assert owners.greet(b"b")
    assert owners.watched
    assert looked(owners, 0, 6) == []
    owners.heard(b"a")
    assert looked(owners, 6, 12) == [b"b"]
    assert (b"a" in owners, b"b" in owners) == (True, False)
    assert looked(owners, 12, 18) == [b"a"]
    assert not owners.watched


def test_a_greeting_again_changes_nothing_for_one_that_is_known() -> None:
    owners = Owners(10)
    owners.greet(b"a")
    assert owners.greet(b"a")
    assert list(owners) == [HOST, b"a"]


@pytest.mark.parametrize("held_up_s", [11, 3600, 86_400])
def test_an_engine_that_was_held_up_itself_blames_no_owner(held_up_s: float) -> None:
    """A suspended machine, a device that hung: what was said meanwhile is still to be read."""
    owners = Owners(10)
    owners.greet(b"a")
    looked(owners, 0, 5)
    assert owners.look(5 + held_up_s) == []
    assert b"a" in owners


def test_what_one_says_that_is_not_known_makes_it_no_owner() -> None:
    owners = Owners()
    owners.heard(b"a")
    assert b"a" not in owners
    owners.forget(b"a")


def test_there_are_only_so_many() -> None:
    owners = Owners()
    assert all(owners.greet(number.to_bytes(4, "big")) for number in range(MAX_OWNERS))
    assert not owners.greet(b"one more")
    assert owners.greet((0).to_bytes(4, "big")), "it is in already"
    owners.forget((1).to_bytes(4, "big"))
    assert owners.greet(b"one more")
