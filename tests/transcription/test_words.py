"""Words and their times from tokens, and speech and turns from probabilities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.engine.model import TokenMark
from rtc_server.transcription.turns import HeadTracker, SpeechKind, VoiceTracker
from rtc_server.transcription.words import Word, WordAssembler, WordEnd

FRAME_S = 0.08
SCRIPT = {"_": TokenMark.PADDING, "|": TokenMark.BOUNDARY, ".": TokenMark.NONE}


def assemble(tokens: list[str], delay_s: float = 0.0, prefix_s: float = 0.0) -> list[Word | WordEnd]:
    """``_`` is padding, ``|`` a boundary, ``.`` nothing yet, anything else a piece."""
    words = WordAssembler(delay_s, prefix_s)
    made = []
    for frame, token in enumerate(tokens, 1):
        mark = SCRIPT.get(token, TokenMark.TEXT)
        made += words.push(frame, mark, token if mark is TokenMark.TEXT else "")
    return made + words.finish()


def frames(*numbers: int) -> list[float]:
    return [pytest.approx(number * FRAME_S) for number in numbers]


def test_a_word_is_between_its_boundaries() -> None:
    """The boundary is heard by frame 3; the word's first piece begins where that frame ends."""
    word, end = assemble(["_", "_", "|", " hel", "lo", "|"])
    assert isinstance(word, Word)
    assert isinstance(end, WordEnd)
    assert [word.text, word.start_s, word.end_s, end.stop_s] == ["hello", *frames(3, 5, 6)]


def test_padding_ends_a_word_and_the_next_boundary_says_where() -> None:
    made = assemble(["|", " a", "_", "_", "_", "|", " b", "_"])
    assert [type(each) for each in made] == [Word, WordEnd, Word]
    assert made[1] == WordEnd(pytest.approx(6 * FRAME_S))  # type: ignore[arg-type]


def test_words_without_a_boundary_between_them_are_two() -> None:
    made = [each for each in assemble(["|", " one", " two", "ty", "_"]) if isinstance(each, Word)]
    assert [(word.text, word.start_s) for word in made] == [("one", *frames(1)), ("twoty", *frames(2))]


def test_times_are_those_of_the_audio() -> None:
    (word, *_) = assemble(["_"] * 20 + ["|", " late", "_"], delay_s=0.5, prefix_s=1.04)
    assert isinstance(word, Word)
    assert word.start_s == pytest.approx(21 * FRAME_S - 1.54)


def test_nothing_was_said_before_the_beginning() -> None:
    (word, *_) = assemble(["|", " early", "_"], delay_s=0.5)
    assert word == Word("early", 0.0, 0.0)


def test_the_last_word_comes_at_the_end_of_the_stream() -> None:
    assert [word.text for word in assemble(["|", " cut", "off"]) if isinstance(word, Word)] == ["cutoff"]
    assert assemble(["|", "_"]) == assemble(["."]) == assemble([]) == []


def test_pieces_that_are_parts_of_a_character_are_parts_of_a_word() -> None:
    words = WordAssembler()
    words.push(1, TokenMark.TEXT, " gr")
    words.push(2, TokenMark.TEXT, "")
    words.push(3, TokenMark.TEXT, "ü")
    assert [each.text for each in words.finish() if isinstance(each, Word)] == ["grü"]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 12)), max_size=20), st.integers(0, 5))
def test_times_are_those_of_the_audio_whatever_silence_was_put_in(pauses: list[tuple[int, int]], delay: int) -> None:
    """A word in every frame of the audio; after so many of them so much silence, again and again."""
    words = WordAssembler(delay * FRAME_S, 2 * FRAME_S)
    heard: list[int | None] = [None, None]
    said, silences = 0, {}
    for spoken, silent in pauses:
        heard += range(said, said + spoken)
        said += spoken
        silences[len(heard)] = silent
        heard += [None] * silent
    made = []
    for frame, number in enumerate([None] * delay + heard, 1):
        if frame - 1 in silences:
            words.insert(frame - 1, silences[frame - 1])
        mark = TokenMark.PADDING if number is None else TokenMark.TEXT
        made += words.push(frame, mark, "" if number is None else f" {number}")
    starts = {each.text: each.start_s for each in made + words.finish() if isinstance(each, Word)}
    assert starts == {str(number): pytest.approx(number * FRAME_S) for number in range(said)}


@given(st.lists(st.sampled_from(["_", "|", ".", " a", "b", ""]), max_size=60), st.floats(0, 3))
def test_no_letter_is_lost_and_time_does_not_run_backwards(tokens: list[str], delay_s: float) -> None:
    made = assemble(tokens, delay_s)
    words = [each for each in made if isinstance(each, Word)]
    assert "".join(word.text for word in words) == "".join(t for t in tokens if t not in SCRIPT).replace(" ", "")
    assert all(word.start_s <= word.end_s for word in words)
    assert all(a.start_s <= b.start_s for a, b in itertools.pairwise(words))
    assert sum(isinstance(each, WordEnd) for each in made) <= len(words)


def kinds(made: Sequence[object]) -> list[SpeechKind]:
    return [event.kind for event in made]  # type: ignore[attr-defined]


def test_a_model_that_tells_of_pauses() -> None:
    tracker = HeadTracker(0.5)
    quiet, short, long = (0.1, 0.1, 0.1, 0.1), (0.9, 0.2, 0.1, 0.0), (0.9, 0.9, 0.8, 0.1)
    steps = [(quiet, False), (quiet, True), (quiet, True), (short, False), (short, False), (long, False), (long, False),
             (quiet, True), ((), False)]  # fmt: skip
    made = [(n, event.kind) for n, (p, wrote) in enumerate(steps) for event in tracker.push(n * 80, p, wrote)]
    assert made == [
        (1, SpeechKind.STARTED),
        (3, SpeechKind.ENDED),
        (5, SpeechKind.TURN_ENDED),
        (7, SpeechKind.STARTED),
    ]
    assert kinds(tracker.finish(900)) == [SpeechKind.ENDED, SpeechKind.TURN_ENDED]
    assert tracker.finish(1000) == []


def test_a_pause_in_which_nothing_was_said_ends_no_turn() -> None:
    tracker = HeadTracker(0.5)
    assert [tracker.push(n * 80, (0.9, 0.9, 0.9, 0.9), False) for n in range(20)] == [[]] * 20


def test_a_model_with_one_head_tells_both() -> None:
    tracker = HeadTracker(0.5)
    tracker.push(0, (0.0,), True)
    assert kinds(tracker.push(80, (0.9,), False)) == [SpeechKind.ENDED, SpeechKind.TURN_ENDED]


def voice(probabilities: list[float], tracker: VoiceTracker | None = None) -> list[tuple[SpeechKind, int]]:
    tracker = tracker or VoiceTracker(0.5, hangover_ms=400, turn_ms=1000)
    return [(e.kind, e.at_ms) for n, p in enumerate(probabilities, 1) for e in tracker.push(n * 80, p)]


def test_speech_by_a_detector() -> None:
    made = voice([0.0] * 5 + [0.9] * 10 + [0.0] * 20)
    assert made == [(SpeechKind.STARTED, 400), (SpeechKind.ENDED, 1200), (SpeechKind.TURN_ENDED, 1200)]


def test_a_click_is_no_speech_and_a_breath_no_end() -> None:
    assert voice([0.0, 0.9, 0.0] * 20) == []
    assert voice([0.9] * 5 + [0.1] * 4 + [0.9] * 5) == [(SpeechKind.STARTED, 0)]


def test_what_is_open_ends_with_the_stream() -> None:
    tracker = VoiceTracker(0.5, 400, 1000)
    voice([0.9] * 5, tracker)
    assert kinds(tracker.finish(480)) == [SpeechKind.ENDED, SpeechKind.TURN_ENDED]
    assert tracker.finish(560) == []


@given(st.lists(st.floats(0, 1), max_size=200))
def test_starts_and_ends_take_turns(probabilities: list[float]) -> None:
    made = [kind for kind, _ in voice(probabilities) if kind is not SpeechKind.TURN_ENDED]
    assert all(a is not b for a, b in itertools.pairwise(made))
    assert not made or made[0] is SpeechKind.STARTED
