"""Transcripts as files: what others read in them is what was said, when it was said, in pieces that can be read."""

from __future__ import annotations

import html
import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.transcription.captions import (
    CUE_LINES,
    CUE_MS,
    LINE_CHARS,
    Cue,
    TimedWord,
    Transcript,
    breaks_at_gaps,
    cues,
    render,
    split_turns,
)

TIME = re.compile(r"(\d{2,}):(\d{2}):(\d{2})[,.](\d{3})")


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Anything that a model may write at any speed, also more of it at once than anybody can read."""
    texts = draw(st.lists(st.text(min_size=1, max_size=60) | st.sampled_from(["hello", "-->", "&amp;", "<i>", "yes."])))
    words, at = [], 0
    for text in texts:
        at += draw(st.integers(0, 3000))
        end = at + draw(st.integers(0, 9000))
        words.append(TimedWord(text, at, end))
        at = draw(st.integers(at, end))
    breaks = draw(st.lists(st.integers(0, len(words) + 1)))
    return Transcript(at, split_turns(words, breaks))


def said(*texts: str, at_ms: int = 0, each_ms: int = 300) -> list[TimedWord]:
    return [
        TimedWord(text, at_ms + number * each_ms, at_ms + (number + 1) * each_ms) for number, text in enumerate(texts)
    ]


def one_turn(words: list[TimedWord]) -> Transcript:
    return Transcript(words[-1].end_ms if words else 0, split_turns(words, []))


def in_ms(text: str) -> int:
    found = TIME.fullmatch(text)
    assert found, text
    hours, minutes, seconds, rest = map(int, found.groups())
    assert minutes < 60
    assert seconds < 60
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def read(text: str) -> list[Cue]:
    """The cues of a SubRip or WebVTT file, as a strict reader takes them."""
    made = []
    for block in text.strip("\n").split("\n\n"):
        lines = block.split("\n")
        if lines == ["WEBVTT"] or block == "":
            continue
        if lines[0].isdigit() and "-->" in lines[1]:
            assert int(lines.pop(0)) == len(made) + 1
        start, end = lines[0].split(" --> ")
        assert lines[1:], block
        made.append(Cue(in_ms(start), in_ms(end), tuple(lines[1:])))
    return made


def visible(text: str) -> str:
    """Without what no file of lines can carry."""
    return "".join(char for char in text if char.isprintable() and not char.isspace())


@given(transcripts())
def test_cues_can_be_read(transcript: Transcript) -> None:
    made = cues(transcript)
    for cue in made:
        assert 0 <= cue.start_ms < cue.end_ms <= cue.start_ms + CUE_MS
        for line in cue.lines:
            assert line.strip() == line != ""
            assert len(line) <= LINE_CHARS or " " not in line or len(line.split()) == 1 or len(line) <= 60
        assert 1 <= len(cue.lines) <= CUE_LINES or len(cue.lines) == 1
    for cue, after in pairwise(made):
        assert cue.end_ms <= after.start_ms
    assert visible(" ".join(line for cue in made for line in cue.lines)) == visible(
        " ".join(word.text for word in transcript.words)
    )


@given(transcripts())
def test_what_is_written_can_be_read_back(transcript: Transcript) -> None:
    made = cues(transcript)
    vtt, srt = render(transcript, "vtt"), render(transcript, "srt")
    assert vtt.startswith("WEBVTT\n")
    from_vtt = [Cue(cue.start_ms, cue.end_ms, tuple(map(html.unescape, cue.lines))) for cue in read(vtt)]
    assert from_vtt == made
    assert [(cue.start_ms, cue.end_ms, len(cue.lines)) for cue in read(srt)] == [
        (cue.start_ms, cue.end_ms, len(cue.lines)) for cue in made
    ]
    assert not re.search(r"[<>{}]", srt.replace(" --> ", ""))


@given(transcripts())
def test_json_holds_everything(transcript: Transcript) -> None:
    made = json.loads(render(transcript, "json"))
    assert made["duration_ms"] == transcript.duration_ms
    assert [(word["text"], word["start_ms"], word["end_ms"]) for word in made["words"]] == [
        (word.text, word.start_ms, word.end_ms) for word in transcript.words
    ]
    assert " ".join(turn["text"] for turn in made["turns"]) == made["text"]


@given(st.lists(st.integers(-3, 12)), st.integers(0, 9))
def test_turns_hold_every_word_once(breaks: list[int], count: int) -> None:
    words = said(*map(str, range(count)))
    turns = split_turns(words, breaks)
    assert [word for turn in turns for word in turn.words] == words
    assert all(turn.words for turn in turns)


def test_a_turn_ends_where_nothing_is_said() -> None:
    words = [*said("one", "two"), *said("three", at_ms=1700), *said("four", at_ms=2900)]
    assert breaks_at_gaps(words, 1000) == [2]
    assert breaks_at_gaps(words, 900) == [2, 3]
    assert breaks_at_gaps([], 1000) == []


def test_a_paragraph_for_each_turn() -> None:
    words = said("hello", "there", "hello", "yourself")
    assert render(Transcript(1200, split_turns(words, [2])), "txt") == "hello there\n\nhello yourself\n"


@pytest.mark.parametrize(("form", "empty"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n")])
def test_silence_is_a_valid_file(form: str, empty: str) -> None:
    assert render(one_turn([]), form) == empty  # type: ignore[arg-type]


def test_a_file_as_it_looks() -> None:
    words = [*said("so", "AT&T,", at_ms=3_599_400), *said("<well>", at_ms=3_605_000)]
    transcript = Transcript(3_610_000, split_turns(words, [2]))
    assert render(transcript, "srt") == (
        "1\n00:59:59,400 --> 01:00:00,400\nso AT&T,\n\n2\n01:00:05,000 --> 01:00:06,000\n‹well›\n"
    )
    assert render(transcript, "vtt") == (
        "WEBVTT\n\n00:59:59.400 --> 01:00:00.400\nso AT&amp;T,\n\n01:00:05.000 --> 01:00:06.000\n&lt;well&gt;\n"
    )


def test_long_speech_is_cut_by_length_time_sentence_and_pause() -> None:
    by_length = cues(one_turn(said(*["letters"] * 40, each_ms=50)))
    assert [len(cue.lines) for cue in by_length[:-1]] == [2] * (len(by_length) - 1)
    by_time = cues(one_turn(said(*["slow"] * 10, each_ms=2000)))
    assert [len(" ".join(cue.lines).split()) for cue in by_time] == [3, 3, 3, 1]
    sentence = said(*["words"] * 7, "end.", "Then", "on", each_ms=100)
    assert [cue.lines[0].split()[0] for cue in cues(one_turn(sentence))] == ["words", "Then"]
    pause = [*said("one", "two"), *said("three", at_ms=1600)]
    assert [cue.lines for cue in cues(one_turn(pause))] == [("one two",), ("three",)]


def test_hours_may_have_three_digits() -> None:
    transcript = one_turn([TimedWord("late", 360_000_000, 360_000_500)])
    assert "100:00:00.000 --> 100:00:01.000" in render(transcript, "vtt")
