"""People hesitate and say what the model does not know; it is still known what they said."""

from __future__ import annotations

import random

from lab.pico import phrases
from training import manners


def test_what_is_said_casually_is_known_word_by_word() -> None:
    """Of the words of a question none is lost, but those that are shortened."""
    random_ = random.Random(1)
    known = {*phrases.vocabulary(), *manners.FILLERS}
    heard = set()
    for question in phrases.questions():
        text = question.wordings[0]
        said = manners.casually(text, random_).split()
        heard |= {*said}
        assert {*said} <= known | {*text.split()}
        whole = " ".join(said)
        for long, short in phrases.SHORT.items():
            whole = whole.replace(short, long)
        assert {*text.split()} <= {*whole.split()}, (text, said)
    assert {"um", "uh", "er", "what's", "well", "thanks"} <= heard


def test_each_question_can_be_said_in_three_times_as_many_ways() -> None:
    random_ = random.Random(2)
    for question in random_.sample(phrases.questions(), 40):
        ways = {manners.casually(text, random_) for text in question.wordings for _ in range(8)}
        assert len(ways | {*question.wordings}) >= 3 * len(question.wordings)


def test_unknown_words_are_in_no_question_and_no_answer_and_some_are_held_out() -> None:
    unknown = {*manners.unknown()}
    assert len(unknown) > 150
    assert not unknown & {*phrases.vocabulary()}
    random_ = random.Random(3)
    trained = {word for _ in range(2000) for word in manners.strangely(random_).split()} & unknown
    examined = {
        word
        for _ in range(500)
        for word in manners.with_unknown("the teacher sold a boat", random_, held_out=True).split()
    } & unknown
    assert len(trained) > 100
    assert len(examined) > 15
    assert not trained & examined


def test_a_garbled_question_is_no_question_any_more() -> None:
    random_ = random.Random(4)
    known = {text for question in phrases.questions() for text in question.wordings}
    unknown = set(manners.unknown())
    for question in random_.sample(phrases.questions(), 40):
        text = question.trained()[0]
        made = manners.garbled(text, random_)
        assert made not in known
        changed = [(was, now) for was, now in zip(text.split(), made.split(), strict=True) if was != now]
        assert len(changed) == 1
        assert changed[0][1] in unknown
    assert "what is the" in manners.garbled("what is the opposite", random_)
