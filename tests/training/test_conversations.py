"""Scenes to learn from: the model answers after the phrase, stops when told to and goes on where it was."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from lab.pico import own_voice, phrases
from rtc_server.audio import FRAME_SAMPLES
from tests.conftest import need_commands
from training.conversations import ANSWER_AFTER, FRAMES, STOP_AFTER, Playwright, Scene, Uttered


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    need_commands("espeak-ng")
    playwright = Playwright(11)
    return [playwright.scene() for _ in range(60)]


def test_the_model_never_speaks_twice_at_once(scenes: list[Scene]) -> None:
    for scene in scenes:
        for first, second in pairwise(scene.uttered):
            assert first.frame + first.frames <= second.frame


def test_an_answer_begins_after_silence_of_the_person(scenes: list[Scene]) -> None:
    answers = 0
    for scene in scenes:
        ends = {one.frame for one in scene.heard}
        for before, one in zip([None, *scene.uttered], scene.uttered, strict=False):
            begins = before is None or before.frame + own_voice.COUNT_FRAMES + 1 < one.frame
            if begins and one.frame < FRAMES:
                answers += 1
                assert one.frame - ANSWER_AFTER - 1 in ends
                quiet = scene.person[(one.frame - ANSWER_AFTER) * FRAME_SAMPLES : (one.frame - 1) * FRAME_SAMPLES]
                assert np.abs(quiet).max(initial=0.0) < 0.01
    assert answers > 100


def test_some_begin_with_the_first_frame(scenes: list[Scene]) -> None:
    """As a program does that sends a file; most people wait."""
    at_once = sum(np.abs(scene.person[: 2 * FRAME_SAMPLES]).max() > 0.01 for scene in scenes)
    assert 0 < at_once < len(scenes) / 2


def test_a_count_that_was_stopped_goes_on_with_the_next_number(scenes: list[Scene]) -> None:
    gone_on = 0
    for scene in scenes:
        said = [(frame, phrases.NUMBERS.index(word)) for frame, word in scene.words() if word in phrases.NUMBERS]
        asked = [one.frame for one in scene.heard if one.word in ("on", "continue", "going")]
        for (frame, number), (later, next_number) in pairwise(said):
            resumed = any(frame < at < later for at in asked) and later - frame > own_voice.COUNT_FRAMES
            gone_on += resumed and next_number == number + 1
    assert gone_on >= 5


def test_stop_is_followed_by_silence(scenes: list[Scene]) -> None:
    stopped = 0
    for scene in scenes:
        for one in scene.heard:
            interrupted = [other for other in scene.uttered if other.frame < one.frame < other.frame + other.frames]
            if one.word == "stop" and interrupted and one.frame + STOP_AFTER < FRAMES:
                stopped += 1
                assert interrupted[-1].frame + interrupted[-1].frames <= one.frame + STOP_AFTER
    assert stopped >= 3


def test_a_cut_leaves_what_was_said_before_it() -> None:
    scene = Scene(uttered=[Uttered(10, "seven", 6), Uttered(20, "eight", 5), Uttered(30, "nine", 6)])
    scene.cut(22)
    assert scene.uttered == [Uttered(10, "seven", 6), Uttered(20, "eight", 2)]


def test_a_part_that_is_cut_fades_and_is_silent() -> None:
    need_commands("espeak-ng")
    whole = own_voice.part("seventeen").pcm
    cut = own_voice.cut(whole, 2)
    np.testing.assert_array_equal(cut[: 2 * FRAME_SAMPLES], whole[: 2 * FRAME_SAMPLES])
    assert not cut[3 * FRAME_SAMPLES :].any()


def test_the_same_seed_makes_the_same_scene() -> None:
    need_commands("espeak-ng")
    first, second = (Playwright(5).scene() for _ in range(2))
    assert [one.text for one in first.uttered] == [one.text for one in second.uttered]
    assert [one.word for one in first.heard] == [one.word for one in second.heard]
    # Some of espeak-ng's voices breathe a little differently each time.
    moved = [abs(one.frame - other.frame) for one, other in zip(first.heard, second.heard, strict=True)]
    assert max(moved) <= 1
