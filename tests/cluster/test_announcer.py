"""By which name, at which address and with how many slots an engine is in its pool."""

from __future__ import annotations

import socket

import pytest

from rtc_server.cluster.announcer import reached_at, slots_that_count, split_name
from rtc_server.engine.messages import Pong
from rtc_server.engine.model import PagesUse


def test_a_name_may_have_a_life_and_without_one_it_is_random() -> None:
    assert split_name("gpu1/3") == ("gpu1", "gpu1/3")
    assert split_name("gpu1") == ("gpu1", "gpu1")
    names = [split_name("") for _ in range(2)]
    assert names[0] != names[1]
    assert all(name == life and name for name, life in names)


@pytest.mark.parametrize(
    ("listen", "pool", "reached"),
    [
        ("10.0.0.7:7700", "10.0.0.1:7800", "10.0.0.7:7700"),
        ("gpu1.example.org:7700", "10.0.0.1:7800", "gpu1.example.org:7700"),
        ("0.0.0.0:7700", "127.0.0.1:7800", "127.0.0.1:7700"),
        ("[::]:7700", "127.0.0.1:7800", "127.0.0.1:7700"),
        ("[::]:7700", "[::1]:7800", "[::1]:7700"),
    ],
)
def test_an_engine_that_listens_everywhere_is_reached_by_its_address_on_the_way_to_the_pool(
    listen: str, pool: str, reached: str
) -> None:
    assert reached_at(listen, pool) == reached


def test_without_a_way_to_the_pool_there_is_no_address() -> None:
    with pytest.raises(socket.gaierror):
        reached_at("0.0.0.0:7700", "pool.invalid:7800")


@pytest.mark.parametrize(
    ("pong", "counts"),
    [
        (Pong(3), 8),
        (Pong(3, PagesUse(230, 60, 2)), 5),
        (Pong(3, PagesUse(230, 230, 9)), 8),
        (Pong(5, PagesUse(230, 0, 0)), 5),
        (Pong(0, PagesUse(9, 0, 0)), 1),  # 0 would be one that loads
    ],
)
def test_an_engine_tells_the_pool_of_slots_for_which_it_has_memory(pong: Pong, counts: int) -> None:
    assert slots_that_count(8, pong) == counts
