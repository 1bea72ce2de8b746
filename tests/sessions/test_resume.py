"""Resume tokens: one use, one offer, one session; and the events that were missed."""

from __future__ import annotations

import pytest

from rtc_server.errors import ResumeRefused
from rtc_server.protocols.events import Text
from rtc_server.sessions.event_log import EventLog
from rtc_server.sessions.resume import ResumeTokens


def test_a_token_is_good_once() -> None:
    tokens = ResumeTokens()
    token = tokens.issue()
    assert tokens.redeem(token, "offer") is True
    with pytest.raises(ResumeRefused):
        tokens.redeem(token, "another offer")


def test_the_same_offer_again_is_known() -> None:
    """Its answer was lost on the way; the next token, in that answer, is not spent by it."""
    tokens = ResumeTokens()
    token = tokens.issue()
    tokens.redeem(token, "offer")
    following = tokens.issue()
    assert tokens.redeem(token, "offer") is False
    assert tokens.redeem(following, "second offer") is True
    with pytest.raises(ResumeRefused):
        tokens.redeem(token, "offer")


def test_once_the_client_is_back_its_offer_is_as_good_as_any() -> None:
    tokens = ResumeTokens()
    token = tokens.issue()
    tokens.redeem(token, "offer")
    tokens.issue()
    tokens.settle()
    with pytest.raises(ResumeRefused):
        tokens.redeem(token, "offer")


def test_an_offer_that_could_not_be_answered_costs_no_token() -> None:
    tokens = ResumeTokens()
    token = tokens.issue()
    tokens.redeem(token, "a broken offer")
    tokens.restore()
    assert tokens.redeem(token, "a good one") is True


def test_an_older_token_is_worth_nothing() -> None:
    tokens = ResumeTokens()
    older, newer = tokens.issue(), tokens.issue()
    with pytest.raises(ResumeRefused):
        tokens.redeem(older, "offer")
    assert tokens.redeem(newer, "offer") is True


@pytest.mark.parametrize("token", ["", "x", "\ud800", "x" * 100_000])
def test_anything_else_is_refused(token: str) -> None:
    tokens = ResumeTokens()
    with pytest.raises(ResumeRefused):
        tokens.redeem(token, "offer")
    right = tokens.issue()
    for wrong in (token, right[:-1], right + "x", right.swapcase()):
        with pytest.raises(ResumeRefused):
            tokens.redeem(wrong, "offer")
    assert tokens.redeem(right, "offer") is True


def test_tokens_cannot_be_guessed() -> None:
    tokens = {ResumeTokens().issue() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {32}  # 24 random bytes


def test_what_came_after_a_number_comes_again_in_order() -> None:
    log = EventLog(kept=3)
    assert (log.last, log.since(0)) == (0, [])
    for number, text in enumerate("abcde", 1):
        log.add(number, text, Text(text))
    assert log.last == 5
    assert log.since(3) == [(4, "d", Text("d")), (5, "e", Text("e"))]
    assert log.since(5) == log.since(99) == []
    assert [text for _, text, _ in log.since(0)] == ["c", "d", "e"]


def test_numbers_have_no_holes() -> None:
    with pytest.raises(AssertionError):
        EventLog().add(2, "b", Text("b"))
