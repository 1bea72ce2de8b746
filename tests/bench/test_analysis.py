"""The figures: a call with a known delay, a known hole and a known stall is measured as what it is."""

from __future__ import annotations

import numpy as np
import pytest

from bench.analysis import assemble, first_sound_at, judge, settled_at
from bench.rtp_client import Arrival, CallLog
from bench.tape import PACKET_S, PACKET_SAMPLES, Tape, encode, warble_tape


@pytest.fixture(scope="module")
def tape() -> Tape:
    return warble_tape(8.0)


def echo(tape: Tape, delay_s: float, *, packets: int = 300, late_from: int = 10**9, late_s: float = 0.0) -> CallLog:
    """A perfect echo of whole packets; from packet ``late_from`` on it comes ``late_s`` later still."""
    log = CallLog()
    for number in range(packets):
        sent = number * PACKET_S
        log.sent.append(sent)
        at = sent + delay_s + (late_s if number >= late_from else 0.0)
        payload = tape.packets[number % len(tape.packets)]
        log.arrivals.append(Arrival(at, (65_500 + number) & 0xFFFF, (number * PACKET_SAMPLES) & 0xFFFFFFFF, payload))
    return log


def test_the_delay_of_an_echo_is_found(tape: Tape) -> None:
    """To the millisecond, over a sequence number that wraps; nothing is missing, late or unlike."""
    verdict = judge(echo(tape, 0.137), tape, since=1.0)
    assert np.percentile(verdict.delays.seconds, [1, 50, 99]) == pytest.approx([0.137] * 3, abs=0.001)
    assert verdict.likeness > 0.99
    assert verdict.longest_gap_s < 0.01
    assert verdict.on_time > 0.99
    assert verdict.missing == 0


def test_a_stall_that_is_never_made_up_for(tape: Tape) -> None:
    """It shows as a gap, as a delay that stays, and as frames that are late."""
    log = echo(tape, 0.1, late_from=150, late_s=0.28)
    verdict = judge(log, tape, reference_s=0.1)
    assert verdict.longest_gap_s == pytest.approx(0.28, abs=0.01)
    assert verdict.on_time == pytest.approx(0.5, abs=0.1)
    assert settled_at(verdict.delays, since=3.0, level_s=0.1) is None
    assert np.median(verdict.delays.seconds[-50:]) == pytest.approx(0.38, abs=0.002)


def test_a_stall_that_is_made_up_for(tape: Tape) -> None:
    """A second of lateness is over a second after it began."""
    log = echo(tape, 0.1)
    log.arrivals = [
        Arrival(a.at + (0.2 if 3.0 <= a.at < 4.0 else 0.0), a.sequence, a.timestamp, a.payload) for a in log.arrivals
    ]
    settled = settled_at(judge(log, tape).delays, since=3.0, level_s=0.1)
    assert settled == pytest.approx(1.2, abs=0.25)


def test_silence_where_something_was_said_is_a_gap(tape: Tape) -> None:
    """Five packets that hold nothing are 100 ms, although they came on time."""
    log = echo(tape, 0.1)
    silence = encode(np.zeros(20 * PACKET_SAMPLES, dtype=np.float32))[10:15]
    for number, payload in zip(range(150, 155), silence, strict=True):
        before = log.arrivals[number]
        log.arrivals[number] = Arrival(before.at, before.sequence, before.timestamp, payload)
    verdict = judge(log, tape)
    assert verdict.longest_silence_s == pytest.approx(0.1, abs=0.03)
    assert verdict.longest_wait_s < 0.01


def test_what_was_lost_on_the_way_back_is_not_the_servers_silence(tape: Tape) -> None:
    """It is counted, and otherwise left out; duplicates and swapped packets do no harm either."""
    log = echo(tape, 0.1)
    del log.arrivals[100:103]
    log.arrivals.insert(50, log.arrivals[49])
    log.arrivals[60], log.arrivals[61] = log.arrivals[61], log.arrivals[60]
    verdict = judge(log, tape, since=1.0)
    assert verdict.missing == 3
    assert verdict.longest_silence_s <= 0.02
    assert verdict.on_time > 0.98
    assert assemble(log.arrivals).repeated == 1


def test_first_sound_is_the_first_that_can_be_heard(tape: Tape) -> None:
    """Not the silence with which a server may start."""
    log = echo(tape, 0.1)
    for number, payload in enumerate(encode(np.zeros(10 * PACKET_SAMPLES, dtype=np.float32))):
        before = log.arrivals[number]
        log.arrivals[number] = Arrival(before.at, before.sequence, before.timestamp, payload)
    assert first_sound_at(log) == pytest.approx(log.arrivals[10].at, abs=0.001)


def test_a_call_that_brought_nothing(tape: Tape) -> None:
    """Has figures of its own, and no crash."""
    verdict = judge(CallLog(sent=[0.0, 0.02]), tape)
    assert verdict.delays.seconds.size == 0
    assert verdict.on_time == 0
    assert first_sound_at(CallLog()) is None
