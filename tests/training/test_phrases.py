"""What the bundled model can be asked, and what of it training may see."""

from __future__ import annotations

import random

from lab.pico import own_voice, phrases
from training import voices


def test_every_wording_has_one_answer() -> None:
    answers: dict[str, phrases.Reply] = {}
    for question in phrases.questions():
        for wording in question.wordings:
            assert answers.setdefault(wording, question.reply) == question.reply, wording


def test_there_are_at_least_thirty_answers_and_several_wordings_of_each() -> None:
    replies = {question.reply for question in phrases.questions()}
    assert len(replies) >= 30
    assert min(len(question.wordings) for question in phrases.questions()) >= 6


def test_held_out_wordings_are_never_trained_with() -> None:
    for question in phrases.questions():
        assert question.trained()
        assert not set(question.trained()) & set(question.held_out())
    held_out = [wording for question in phrases.questions() for wording in question.held_out()]
    assert len(held_out) > len([wording for question in phrases.questions() for wording in question.wordings]) / 8


def test_strange_sentences_are_split_as_well_and_are_no_questions() -> None:
    known = {wording for question in phrases.questions() for wording in question.wordings}
    random_ = random.Random(0)
    for held_out in (False, True):
        some = {phrases.strange(random_, held_out=held_out) for _ in range(300)}
        assert len(some) > 150
        assert not some & known
        assert {phrases.is_held_out(text) for text in some} == {held_out}


def test_nobody_is_examined_who_was_trained_with() -> None:
    random_ = random.Random(0)
    assert not {voices.trained(random_).name for _ in range(5000)} & set(voices.HELD_OUT)
    assert len(voices.HELD_OUT) >= 12
    assert own_voice.VOICE.name not in voices.HELD_OUT
