"""A translation that a microphone picks up is known; an answer is not taken for one."""

from __future__ import annotations

import pytest

from rtc_server.rooms.echoes import Echoes


@pytest.fixture
def echoes() -> Echoes:
    known = Echoes()
    known.started("1", "O que é três mais quatro?", 10.0)
    known.ended("1", 12.0)
    return known


@pytest.mark.parametrize(
    ("text", "began_at", "echo"),
    [
        ("o que é três mais quatro", 10.2, True),
        ("que é três mais", 11.5, True),
        ("o que é três mais quatro", 12.4, True),
        ("o que é três mais quatro", 14.0, False),
        ("o que é três mais quatro", 9.0, False),
        ("são sete", 11.0, False),
        ("quatro", 11.0, False),
    ],
)
def test_by_its_words_and_its_time(echoes: Echoes, text: str, began_at: float, echo: bool) -> None:
    assert echoes.has(text, began_at) is echo


def test_one_that_is_still_played_counts() -> None:
    known = Echoes()
    known.started("1", "bom dia a todos", 10.0)
    assert known.has("bom dia a todos", 13.0)
