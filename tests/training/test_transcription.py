"""What the model that transcribes has to write, and how what it wrote is judged."""

from __future__ import annotations

import numpy as np
import pytest

from lab.pico import phrases
from lab.speech import espeak
from lab.speech.spoken import Voice
from rtc_server.audio import FRAME_MS, MODEL_RATE_HZ
from rtc_server.engine.model import TokenMark
from rtc_server.transcription.words import Word, WordAssembler
from tests.conftest import need_commands
from training import dataset
from training.dictation import Score, read_out, score
from training.transcription import DELAY, text_of

PIECES = np.array([10, 11, 12])
FRAMES = 60


def said(*words: tuple[int, int]) -> np.ndarray:
    made = np.full(FRAMES, -1)
    for frame, word in words:
        made[frame] = word
    return made


def read_back(text: np.ndarray) -> list[tuple[str, float]]:
    """As the server reads it: words, and the frame in which each began, after the one that no model hears."""
    assembler = WordAssembler(DELAY * FRAME_MS / 1000)
    marks = {dataset.PADDING: TokenMark.PADDING, dataset.BOUNDARY: TokenMark.BOUNDARY}
    made = [
        word
        for frame, token in enumerate(text.tolist(), 1)
        for word in assembler.push(frame, marks.get(token, TokenMark.TEXT), f" {token}")
    ]
    return [(word.text, round(word.start_s * 1000 / FRAME_MS)) for word in made if isinstance(word, Word)]


def test_a_word_is_written_so_that_the_server_reads_when_it_began() -> None:
    text = text_of(said((5, 0), (20, 2)), PIECES)
    assert read_back(text) == [("10", 5 + 1), ("12", 20 + 1)]
    assert (text == dataset.BOUNDARY).sum() == 2


def test_words_that_are_said_fast_wait_for_each_other() -> None:
    text = text_of(said((5, 0), (6, 1), (7, 2), (20, 0)), PIECES)
    assert read_back(text) == [("10", 6), ("11", 8), ("12", 10), ("10", 21)]


def test_what_would_be_written_after_the_end_is_left_out() -> None:
    assert (text_of(said((FRAMES - 2, 0)), PIECES) == dataset.PADDING).all()


def test_the_vocabulary_has_every_word_that_anybody_says() -> None:
    vocabulary = phrases.vocabulary()
    assert vocabulary == sorted(set(vocabulary))
    for question in phrases.questions():
        assert {word for text in question.wordings for word in text.lower().split()} <= set(vocabulary)
    assert {"newspaper", "harbour", "why", "stop"} <= set(vocabulary)
    assert not {"{who}", "who}", "a,"} & set(vocabulary)


READ = [(0.0, "what"), (0.5, "is"), (1.0, "three"), (1.5, "plus"), (2.0, "four")]


@pytest.mark.parametrize(
    ("wrote", "errors", "right"),
    [
        ("what is three plus four", 0, 5),
        ("What is three plus four", 0, 5),
        ("what is tree plus four", 1, 4),
        ("what three plus four", 1, 4),
        ("so what is three three plus four", 2, 5),
        ("", 5, 0),
        ("four plus", 4, 1),
    ],
)
def test_errors_are_the_least_changes(wrote: str, errors: int, right: int) -> None:
    made = score(READ, [Word(text, 0.1 + index, 1.0 + index) for index, text in enumerate(wrote.split())])
    assert (made.words, made.errors, len(made.starts_s)) == (5, errors, right)


def test_times_are_those_of_the_words_that_are_right() -> None:
    wrote = [Word("what", 0.1, 0.2), Word("tree", 1.0, 1.1), Word("plus", 1.4, 1.5)]
    assert score(READ, wrote).starts_s == pytest.approx((0.1, -0.1))
    assert Score(1, 0, (0.1,)) + Score(2, 1, (0.2,)) == Score(3, 1, (0.1, 0.2))


def test_a_reading_is_the_same_words_in_every_condition() -> None:
    need_commands("espeak-ng")
    readings = [read_out(3, condition, 5) for condition in ("clean", "lossy", "telephone", "room")]
    for one in readings:
        assert [word for _, word in one.words] == [word for _, word in readings[0].words]
        # some of espeak-ng's voices breathe a little differently each time
        assert len(one.pcm) == pytest.approx(len(readings[0].pcm), abs=MODEL_RATE_HZ // 10)
        assert one.words[-1][0] < len(one.pcm) / MODEL_RATE_HZ
        assert np.abs(one.pcm).max() <= 1.0
    assert {word for _, word in readings[0].words} <= set(phrases.vocabulary())


def test_words_that_are_spoken_as_one_are_two() -> None:
    need_commands("espeak-ng")
    spoken = espeak.speak("good night, in the attic", Voice("en-us+f2"))
    starts = [at for at, _ in spoken.words]
    assert [word for _, word in spoken.words] == ["good", "night", "in", "the", "attic"]
    assert starts == sorted(set(starts))
    assert starts[-1] < spoken.duration_s
