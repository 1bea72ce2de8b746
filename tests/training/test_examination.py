"""The examination gives a model that answers well full marks, and tells what another one does wrong."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from lab.pico import phrases
from tests.conftest import need_commands
from tests.training.actor import Actor
from training import direct
from training.examination import (
    PACE_S,
    STOP,
    STRANGE,
    Finding,
    Heard,
    Task,
    counted,
    draw,
    figures,
    is_even,
    judge_answer,
    judge_count_begun,
    judge_stop,
)
from training.person import Person

SUM = Task("sums", "what is two plus five", "that is seven")
STOPPED = Task(STOP, "count to ten", count_to=10, stop="stop", go_on="go on", wait_s=2.0)


@pytest.fixture(scope="module", autouse=True)
def espeak() -> None:
    need_commands("espeak-ng")


def examined(*tasks: Task, seed: int = 1, **manners: Any) -> list[Finding]:
    """What a person finds who asks all this of an :class:`Actor`."""
    person = Person(tasks, "clean", seed)
    direct.converse(Actor(person, **manners), [person])
    return person.findings


def test_a_model_that_knows_everything_gets_full_marks() -> None:
    """A task of each topic; a stop is followed by the rest of the count."""
    findings = examined(*draw(14, random.Random(3)))
    assert [(one.topic, one.why) for one in findings if not one.right] == []
    assert len({one.topic for one in findings}) == 15
    made = figures(findings)
    assert made.right == made.stop_heard == made.even == 1.0
    assert made.delay_median_s is not None
    assert 0.2 < made.delay_median_s < 0.5


def test_other_words_are_not_right() -> None:
    (finding,) = examined(SUM, lines={SUM.said: "six"})
    assert (finding.right, finding.got, finding.why) == (False, "six", "other words")


def test_words_without_a_voice_are_not_right() -> None:
    (finding,) = examined(SUM, mute=True)
    assert (finding.got, finding.why, finding.delay_s) == ("that is seven", "no sound", None)


def test_a_late_answer_is_right_and_its_delay_is_known() -> None:
    """Ten frames after the frame in which the phrase has ended."""
    (finding,) = examined(SUM, wait_frames=10)
    assert finding.right
    assert finding.delay_s is not None
    assert 0.8 <= finding.delay_s < 1.0


def test_an_answer_after_three_seconds_is_none() -> None:
    (finding,) = examined(SUM, wait_frames=40)
    assert finding.why == "no answer"


def test_a_stop_that_is_not_heard_is_noticed() -> None:
    """And there is nothing left to go on with."""
    count, stop = examined(STOPPED, deaf=True)
    assert count.right
    assert (stop.topic, stop.right, stop.why) == (STOP, False, "went on writing")


def test_a_stop_is_heard_and_the_count_goes_on_with_the_next_number() -> None:
    count, stop, rest = examined(STOPPED)
    assert stop.right
    assert stop.delay_s is not None
    assert stop.delay_s < 0.4
    assert rest.right
    assert f"{count.got} ".startswith("one two three ")
    assert rest.got == counted(10, len(count.got.split()) + 1) or rest.got == counted(10, len(count.got.split()) + 2)


def test_a_count_at_another_pace_is_not_even() -> None:
    (finding,) = examined(Task("count", "count to five", counted(5), count_to=5), pace_frames=11)
    assert finding.right
    assert finding.even is False


def test_without_a_count_there_is_nothing_to_stop() -> None:
    (finding,) = examined(STOPPED, lines={STOPPED.said: "yes"})
    assert finding.why == "not counting"


@pytest.mark.parametrize("condition", ["telephone", "lossy", "room"])
def test_a_condition_changes_the_sound_and_not_the_conversation(condition: Any) -> None:
    people = [Person([SUM], one, 5) for one in ("clean", condition)]
    for person in people:
        direct.converse(Actor(person), [person])
    clean, changed = (person.findings[0] for person in people)
    assert clean.right
    assert changed.right
    assert changed.delay_s == pytest.approx(clean.delay_s, abs=0.02)  # espeak-ng is not quite the same every time


def test_every_topic_is_drawn_as_often_as_every_other() -> None:
    """However many questions it has; and every question of it before any comes again."""
    tasks = draw(140, random.Random(1))
    assert set(Counter(task.topic for task in tasks).values()) == {10}
    opposites = [task.expected for task in tasks if task.topic == "opposites"]
    assert len(set(opposites)) == len(opposites)


def test_wordings_are_those_that_training_never_used() -> None:
    by_wording = {text: one for one in phrases.questions() for text in one.wordings}
    for task in draw(140, random.Random(2)):
        if task.topic == STRANGE:
            assert phrases.is_held_out(task.said)
        elif held_out := by_wording[task.said].held_out():
            assert task.said in held_out


def test_a_seed_decides_the_tasks() -> None:
    assert draw(50, random.Random(4)) == draw(50, random.Random(4)) != draw(50, random.Random(5))


def written(*words: str, pace_s: float = PACE_S) -> list[tuple[float, str]]:
    return [(10.0 + index * pace_s, word) for index, word in enumerate(words)]


def test_a_count_is_even_within_two_frames() -> None:
    assert is_even(written("one", "two", "three", pace_s=PACE_S + 0.16))
    assert not is_even(written("one", "two", "three", pace_s=PACE_S + 0.24))
    assert is_even(written("one"))


@pytest.mark.parametrize(
    ("words", "right"),
    [(["one", "two"], True), (["one", "three"], False), ([], False), (["one", "two", "three", "fo"], False)],
)
def test_a_count_that_has_begun_is_the_beginning_of_the_count(words: list[str], right: bool) -> None:
    heard = Heard(9.0, written(*words), sounds=[9.5])
    assert judge_count_begun(Task(STOP, "count to three", count_to=3), "", heard).right is right


@pytest.mark.parametrize(
    ("words", "sounds", "why"),
    [
        ([], [10.1, 10.58], ""),
        ([(10.3, "four")], [10.1, 10.58], ""),
        ([], [10.1, 10.65], "quiet after 0.66 s"),
        ([(10.7, "four")], [10.1], "went on writing"),
        ([], [9.0], ""),
    ],
)
def test_a_stop_is_heard_if_it_is_quiet_within_its_time(
    words: list[tuple[float, str]], sounds: list[float], why: str
) -> None:
    finding = judge_stop(STOPPED, "", Heard(10.0, words, sounds))
    assert (finding.why, finding.right) == (why, not why)


def test_an_answer_before_the_end_of_the_phrase_has_a_negative_delay() -> None:
    finding = judge_answer("sums", "", "", "six", Heard(10.0, [(9.8, "six")], [9.9]))
    assert finding.right
    assert finding.delay_s == pytest.approx(-0.1)


def test_nothing_asked_gives_no_figures() -> None:
    made = figures([])
    assert (made.right, made.stop_heard, made.delay_median_s, made.by_topic) == (None, None, None, {})
