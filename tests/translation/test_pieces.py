"""Long text is cut where a reader would pause, and nothing of it is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtc_server.translation.pieces import MOST, as_written, is_language, pieces


def test_a_text_that_is_no_longer_than_a_piece_is_one() -> None:
    assert pieces("Dr. Smith is here. Good.") == ["Dr. Smith is here. Good."]
    assert pieces("  ") == []


def test_it_is_cut_behind_a_sentence_else_a_comma_else_a_word() -> None:
    sentence = "x" * 100 + "."
    assert pieces(f"{sentence} {sentence} {sentence}") == [f"{sentence} {sentence}", sentence]
    assert pieces("a, " + "b " * 150) == ["a,", ("b " * 120).strip(), ("b " * 30).strip()]
    assert pieces("y" * 300 + " b") == ["y" * 300, "b"]


@given(st.text(max_size=2000))
def test_nothing_is_lost(text: str) -> None:
    found = pieces(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(len(piece) <= MOST or not any(map(str.isspace, piece)) for piece in found)


def test_what_is_no_language_is_known() -> None:
    assert is_language("Good morning, 3 of you!")
    assert not is_language("?!… —")
    assert not is_language("w" * 41)


def test_spoken_words_become_a_sentence() -> None:
    assert as_written("what time is it", "en") == "What time is it?"
    assert as_written("que horas são", "pt") == "Que horas são?"
    assert as_written("que horas são", "en") == "Que horas são"
    assert as_written("stop", "en") == "Stop"
    assert as_written("what time is it!", "en") == "What time is it!"
    for written in ("Good.", "(x)", "", "5 of them"):
        assert as_written(written, "en") == written
