"""A transcript is cut into what a translator takes well, and its translation stands where it was said."""

from __future__ import annotations

import pytest

from rtc_server.errors import ServerError, TranslationFailed
from rtc_server.transcription.captions import TimedWord, Transcript, Turn, render
from rtc_server.transcription.translated import LONGEST_MS, Passage, Rendered, as_transcript, passages, translate
from rtc_server.translation.model import Translation
from tests.support.translators import fake, running


def turn(text: str, start_ms: int = 0, word_ms: int = 300) -> Turn:
    starts = range(start_ms, start_ms + word_ms * len(text.split()), word_ms)
    return Turn(tuple(TimedWord(word, at, at + word_ms) for word, at in zip(text.split(), starts, strict=True)))


def texts(*turns: Turn) -> list[str]:
    return [passage.text for passage in passages(Transcript(60_000, turns))]


def test_sentences_pauses_and_turns_end_a_passage() -> None:
    assert texts(turn("One two. Three four"), turn("five", 1200)) == ["One two.", "Three four", "five"]
    paused = Turn((*turn("one two").words, *turn("three", 1400).words))
    assert texts(paused) == ["one two", "three"]
    assert texts() == []


def test_speech_without_an_end_is_cut_and_nothing_of_it_is_lost() -> None:
    long = turn("word " * 200)
    cut = passages(Transcript(60_000, (long,)))
    assert " ".join(passage.text for passage in cut) == long.text
    assert all(passage.end_ms - passage.start_ms <= LONGEST_MS for passage in cut)
    assert len(cut) == 4
    assert max(len(text) for text in texts(turn(" ".join(["w" * 90] * 20), word_ms=1))) <= 400


def test_words_of_a_translation_fill_the_time_of_its_passage() -> None:
    rendered = [
        Rendered(Passage("two words", 1000, 2000), Translation("uma palavrinha só", "two words", None)),
        Rendered(Passage("noise", 2000, 2500), Translation("", "noise", None)),
        Rendered(Passage("left", 3000, 4000), TranslationFailed()),
    ]
    made = as_transcript(5000, rendered)
    assert [(word.text, word.start_ms, word.end_ms) for word in made.words] == [
        ("uma", 1000, 1200),
        ("palavrinha", 1200, 1866),
        ("só", 1866, 2000),
        ("left", 3000, 4000),
    ]
    assert render(made, "srt").startswith("1\n00:00:01,000 --> 00:00:02,000\numa palavrinha só\n")


async def told(*said: str, target: str = "pt") -> list[str]:
    """What became of passages: a text, or the code of an error."""
    outcomes: list[str] = []

    async def tell(each: Rendered) -> None:
        assert each.passage.text == said[len(outcomes)]
        outcomes.append(each.outcome.code if isinstance(each.outcome, ServerError) else each.text)

    async with running(fake()) as translator:
        await translate(translator, [Passage(text, 0, 0) for text in said], "en", target, False, tell)
    return outcomes


async def test_passages_are_told_in_order_and_one_that_fails_costs_no_other() -> None:
    many = [f"number {number}" for number in range(30)]
    assert await told("sleep", "refuse", *many) == ["peels", "translation_failed", *(text[::-1] for text in many)]


async def test_what_is_not_translated_is_told_with_its_code() -> None:
    assert await told("hello", target="tlh") == ["unsupported_pair"]


async def test_what_a_caller_raises_ends_it() -> None:
    async def tell(_: Rendered) -> None:
        raise LookupError

    async with running(fake()) as translator:
        with pytest.raises(LookupError):
            await translate(translator, [Passage("sleep", 0, 0)] * 20, "en", "pt", False, tell)
