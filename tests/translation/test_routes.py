"""A translation of text goes the direct way, else over one language between, and never over two."""

from __future__ import annotations

from rtc_server.translation.routes import reachable, via

DIRECT = {("en", "pt"), ("pt", "en"), ("en", "es"), ("es", "pt"), ("ca", "es"), ("ca", "en"), ("fr", "ca")}


def test_the_direct_way_is_taken() -> None:
    assert via(("en", "pt"), DIRECT) == [("en", "pt")]


def test_else_one_over_a_language_between_english_if_it_can_be() -> None:
    assert via(("pt", "es"), DIRECT) == [("pt", "en"), ("en", "es")]
    assert via(("ca", "pt"), DIRECT) == [("ca", "en"), ("en", "pt")]
    assert via(("ca", "pt"), DIRECT - {("ca", "en")}) == [("ca", "es"), ("es", "pt")]


def test_no_way_is_of_three_steps() -> None:
    assert via(("fr", "pt"), DIRECT) is None
    assert via(("fr", "es"), DIRECT) == [("fr", "ca"), ("ca", "es")]


def test_what_can_be_reached_is_what_there_is_a_way_for() -> None:
    pairs = set(reachable(DIRECT))
    assert pairs == DIRECT | {("pt", "es"), ("es", "en"), ("ca", "pt"), ("fr", "es"), ("fr", "en")}
