"""The gate: what is told apart by its first byte, and what is taken from whom."""

from __future__ import annotations

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.webrtc.datagrams import (
    CHECK_BURST,
    DATAGRAM_BURST,
    MAX_DATAGRAM_BYTES,
    MAX_HELD,
    MAX_SOURCES,
    Gate,
    Kind,
    kind_of,
)

PEER = ("192.0.2.1", 4000)
STRANGER = ("198.51.100.66", 6666)
MEDIA = b"\x80" + bytes(40)
NOW = 100.0


def gate() -> Gate:
    return Gate("abcd", NOW)


def check(name: str = "abcd:efgh", kind: stun.Class = stun.Class.REQUEST) -> bytes:
    message = stun.Message(stun.Method.BINDING, kind, bytes(range(12)))
    message.attributes["USERNAME"] = name
    message.add_message_integrity(b"whatever")
    return bytes(message)


@pytest.mark.parametrize("first", range(256))
def test_the_first_byte_tells_what_it_is(first: int) -> None:
    """RFC 7983, section 7."""
    expected = (
        Kind.STUN if first <= 3 else Kind.DTLS if 20 <= first <= 63 else Kind.MEDIA if 128 <= first <= 191 else None
    )
    assert kind_of(bytes([first]) + bytes(60)) is expected


@pytest.mark.parametrize("first", [0, 22, 128, 200])
def test_what_is_too_short_or_too_long_is_nothing(first: int) -> None:
    assert kind_of(b"") is None
    for size in (1, 5, 11, MAX_DATAGRAM_BYTES + 1, 65_000):
        assert kind_of(bytes([first]) + bytes(size - 1)) is None
    assert kind_of(bytes([22]) + bytes(11)) is None, "a record's header has 13 bytes"


def test_a_check_that_names_us_is_read() -> None:
    assert gate().takes_stun(check(), STRANGER, (), NOW)


@pytest.mark.parametrize(
    "datagram",
    [
        check("efgh:abcd"),
        check("abc:abcd"),
        check()[:-4],
        check() + bytes(4),
        check()[:19],
        check()[:4] + bytes(4) + check()[8:],
        b"\x80" + check()[1:],
        check(kind=stun.Class.INDICATION),
        check(kind=stun.Class.RESPONSE),
        check(kind=stun.Class.ERROR),
    ],
)
def test_what_else_looks_like_stun_is_not(datagram: bytes) -> None:
    assert not gate().takes_stun(datagram, STRANGER, (), NOW)


def test_an_answer_is_read_if_it_was_asked_for() -> None:
    assert gate().takes_stun(check(kind=stun.Class.RESPONSE), PEER, {bytes(range(12))}, NOW)


def test_strangers_checks_are_bounded_and_do_not_crowd_out_the_peer() -> None:
    mine = gate()
    mine.check(PEER)
    assert sum(mine.takes_stun(check(), STRANGER, (), NOW) for _ in range(1000)) == CHECK_BURST
    assert mine.takes_stun(check(), PEER, (), NOW)
    assert sum(mine.takes_stun(check(), PEER, (), NOW) for _ in range(1000)) < CHECK_BURST


def test_nothing_is_held_of_a_stranger() -> None:
    mine = gate()
    assert not mine.is_proven(STRANGER)
    assert not mine.hold(MEDIA, STRANGER)


def test_what_came_early_is_given_once_its_source_is_proven() -> None:
    mine = gate()
    mine.check(PEER)
    assert not mine.is_proven(PEER)
    assert all(mine.hold(bytes([number]), PEER) for number in range(2 * MAX_HELD))
    mine.check(PEER)
    assert mine.prove(PEER) == [bytes([number]) for number in range(MAX_HELD)]
    assert mine.is_proven(PEER)
    assert mine.prove(PEER) == []
    mine.check(PEER)
    assert mine.is_proven(PEER)


def test_sources_are_bounded_and_the_one_in_use_stays() -> None:
    mine = gate()
    mine.prove(PEER)
    for port in range(1000):
        mine.check(("192.0.2.1", port))
        mine.prove(("192.0.2.1", port))
        mine.check(PEER)
    assert mine.is_proven(PEER)
    assert len(mine._proven) == MAX_SOURCES
    for port in range(1000):
        mine.check(("203.0.113.1", port))
    assert len(mine._held) == MAX_SOURCES


def test_a_peer_has_so_many_datagrams_a_second() -> None:
    mine = gate()
    assert sum(mine.has_room(NOW) for _ in range(3 * DATAGRAM_BURST)) == DATAGRAM_BURST
    assert mine.has_room(NOW + 1)


@given(st.binary(max_size=2000))
def test_nothing_raises(datagram: bytes) -> None:
    kind_of(datagram)
    gate().takes_stun(datagram, STRANGER, (), NOW)
