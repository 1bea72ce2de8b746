"""A session's state table, move by move, and ids that can be handed out but not guessed."""

from __future__ import annotations

import itertools
import re

import pytest

from rtc_server.errors import IllegalTransition
from rtc_server.sessions.state import TRANSITIONS, EndReason, SessionEvent, SessionId, SessionMachine, SessionState

CONNECTING, LISTENING, SPEAKING, WAITING, ENDED = SessionState
CONNECTED, VOICE_STARTED, VOICE_STOPPED, RESET, TAKEN_OVER, PATH_LOST, END = SessionEvent

LEGAL = {
    (CONNECTING, CONNECTED): LISTENING,
    (CONNECTING, TAKEN_OVER): WAITING,
    (CONNECTING, END): ENDED,
    (LISTENING, VOICE_STARTED): SPEAKING,
    (LISTENING, RESET): LISTENING,
    (LISTENING, PATH_LOST): WAITING,
    (LISTENING, END): ENDED,
    (SPEAKING, VOICE_STOPPED): LISTENING,
    (SPEAKING, RESET): LISTENING,
    (SPEAKING, PATH_LOST): WAITING,
    (SPEAKING, END): ENDED,
    (WAITING, CONNECTED): LISTENING,
    (WAITING, END): ENDED,
}
"""The whole table, written a second time: a move that is added or lost shows here."""

WAY_TO: dict[SessionState, list[SessionEvent]] = {
    CONNECTING: [],
    LISTENING: [CONNECTED],
    SPEAKING: [CONNECTED, VOICE_STARTED],
    WAITING: [CONNECTED, PATH_LOST],
    ENDED: [END],
}


def machine_in(state: SessionState) -> SessionMachine:
    machine = SessionMachine("0-0-test")
    for event in WAY_TO[state]:
        machine.apply(event)
    assert machine.state is state
    return machine


def test_the_table_is_the_one_that_was_agreed() -> None:
    assert TRANSITIONS == LEGAL


@pytest.mark.parametrize(("state", "event"), list(itertools.product(SessionState, SessionEvent)))
def test_every_move(state: SessionState, event: SessionEvent) -> None:
    """A legal one leads where the table says; an illegal one raises and changes nothing."""
    machine = machine_in(state)
    after = LEGAL.get((state, event))
    if after is None:
        with pytest.raises(IllegalTransition) as caught:
            machine.apply(event)
        assert (caught.value.machine, caught.value.state, caught.value.event) == ("session", state, event)
        assert machine.state is state
    else:
        assert machine.apply(event) is after
        assert machine.state is after


def test_nothing_leads_out_of_the_end() -> None:
    assert not [event for state, event in TRANSITIONS if state is ENDED]


def test_every_state_but_the_end_can_end() -> None:
    assert {state for state, event in TRANSITIONS if event is END} == set(SessionState) - {ENDED}


def test_a_session_begins_connecting() -> None:
    assert SessionMachine("0-0-test").state is CONNECTING


@pytest.mark.parametrize(
    ("state", "live"), [(CONNECTING, False), (LISTENING, True), (SPEAKING, True), (WAITING, False), (ENDED, False)]
)
def test_live_means_connected(state: SessionState, live: bool) -> None:
    assert machine_in(state).live is live


def test_end_reasons_are_those_of_the_protocol() -> None:
    """The words of docs/protocol.md, and ``refused``, which nobody is told."""
    assert set(EndReason) == {
        *("bye", "deleted", "connect_timeout", "peer_lost", "handshake_failed", "engine_failed"),
        *(
            "engine_unavailable",
            "server_shutdown",
            "moved",
            "time_limit",
            "protocol_abuse",
            "internal",
            "left",
            "refused",
        ),
    }


def test_an_id_says_where_its_session_lives() -> None:
    assert SessionId("eu_1.a", 7).text.startswith("eu_1.a-7-")
    assert str(SessionId("0", 0)).startswith("0-0-")


def test_ids_cannot_be_guessed() -> None:
    """16 random bytes each: 22 characters that are safe in a URL, and none seen twice."""
    secrets = [SessionId("0", 0).text.removeprefix("0-0-") for _ in range(1000)]
    assert len(set(secrets)) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", secret) for secret in secrets)
    for position in range(21):  # the last character carries two bits only
        assert len({secret[position] for secret in secrets}) > 50


def test_the_log_id_identifies_and_does_not_reveal() -> None:
    """It differs between sessions, belongs to one id, and holds no part of the secret."""
    ids = [SessionId("0", 0) for _ in range(100)]
    assert len({each.log_id for each in ids}) == 100
    for each in ids:
        secret = each.text.removeprefix("0-0-")
        hidden = each.log_id.removeprefix("0-0-")
        assert re.fullmatch(r"[0-9a-f]{8}", hidden)
        assert hidden not in secret
        assert secret[:8] not in each.log_id
