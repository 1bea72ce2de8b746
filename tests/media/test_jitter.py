"""The jitter buffer, packet by packet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server.media.jitter import (
    JUMP_S,
    MAX_GAP_S,
    MAX_HELD,
    MAX_WAIT_S,
    MIN_WAIT_S,
    Audio,
    Gap,
    Item,
    JitterBuffer,
    Lateness,
)

TICKS = 960
HZ = 48_000


class Sender:
    """Packets numbered from 0, with any origin of sequence numbers and timestamps."""

    def __init__(self, buffer: JitterBuffer, sequence: int = 100, timestamp: int = 5000, ssrc: int = 1) -> None:
        self.buffer, self.sequence, self.timestamp, self.ssrc = buffer, sequence, timestamp, ssrc

    def send(self, number: int, now: float, skipped_ticks: int = 0) -> list[Item]:
        """``skipped_ticks``: a hole in time before it."""
        timestamp = (self.timestamp + number * TICKS + skipped_ticks) % 2**32
        return self.buffer.push(
            self.ssrc, (self.sequence + number) % 2**16, timestamp, TICKS, bytes([number % 256]), now
        )


@pytest.fixture
def buffer() -> JitterBuffer:
    return JitterBuffer(HZ)


@pytest.fixture
def sender(buffer: JitterBuffer) -> Sender:
    return Sender(buffer)


def numbers(items: list[Item]) -> list[int | None]:
    """Packet numbers, None for a gap."""
    return [item.payload[0] if isinstance(item, Audio) else None for item in items]


def test_packets_in_order_go_through_at_once(sender: Sender) -> None:
    for number in range(10):
        assert numbers(sender.send(number, number * 0.02)) == [number]


def test_packets_out_of_order_go_out_in_order(sender: Sender) -> None:
    assert numbers(sender.send(0, 0.00)) == [0]
    assert numbers(sender.send(2, 0.04)) == []
    assert numbers(sender.send(1, 0.041)) == [1, 2]


def test_a_duplicate_is_counted_and_dropped(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.0)
    assert sender.send(0, 0.001) == []
    sender.send(2, 0.04)
    assert sender.send(2, 0.041) == []
    assert (buffer.counts.duplicate, buffer.counts.late) == (2, 0)


def test_a_flood_of_copies_does_not_hold_up_the_stream(buffer: JitterBuffer, sender: Sender) -> None:
    """Copies of a packet, quick enough, once moved the time by which the next one was due for ever."""
    sender.send(0, 0.00)
    sender.send(2, 0.04)
    deadline, wait_ms = buffer.deadline, buffer.wait_ms
    for copy in range(400):
        sender.send(copy % 2 * 2, 0.04 + copy * 1e-5)
    assert (buffer.deadline, buffer.wait_ms) == (deadline, wait_ms)
    assert buffer.counts.duplicate == 400
    assert numbers(buffer.poll(0.05)) == [None, 2]


def test_a_lost_packet_becomes_a_gap_with_the_next_packet_for_its_fec(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.00)
    assert sender.send(2, 0.04) == []
    deadline = buffer.deadline
    assert deadline is not None
    assert deadline == pytest.approx(0.02 + MIN_WAIT_S)
    assert buffer.poll(deadline - 1e-3) == []
    items = buffer.poll(deadline)
    assert items == [Gap(TICKS, after=b"\x02"), Audio(b"\x02")]
    assert buffer.counts.lost == 1


def test_what_comes_after_its_gap_has_gone_out_is_late(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.00)
    sender.send(2, 0.04)
    assert buffer.poll(0.05)
    assert sender.send(1, 0.06) == []
    assert buffer.counts.late == 1


def test_two_lost_packets_are_two_gaps(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.00)
    sender.send(3, 0.06)
    assert buffer.poll(0.046) == [Gap(TICKS)]
    assert buffer.poll(0.066) == [Gap(TICKS, after=b"\x03"), Audio(b"\x03")]
    assert buffer.counts.lost == 2


@pytest.mark.parametrize(("sequence", "timestamp"), [(2**16 - 3, 0), (0, 2**32 - 3 * TICKS), (2**16 - 2, 2**32 - 100)])
def test_sequence_numbers_and_timestamps_wrap(buffer: JitterBuffer, sequence: int, timestamp: int) -> None:
    sender = Sender(buffer, sequence, timestamp)
    out = [number for i in range(10) for number in numbers(sender.send(i, i * 0.02))]
    assert out == list(range(10))
    assert buffer.counts.restarts == 0


def test_another_ssrc_starts_afresh(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.0)
    other = Sender(buffer, sequence=7, timestamp=123_456_789, ssrc=2)
    assert numbers(other.send(0, 0.02)) == [0]
    assert numbers(other.send(1, 0.04)) == [1]


def test_a_pause_of_the_sender_is_no_loss(buffer: JitterBuffer, sender: Sender) -> None:
    """DTX: the sequence numbers have no hole, the timestamps have."""
    sender.send(0, 0.0)
    items = sender.send(1, 0.10, skipped_ticks=4 * TICKS)
    assert items == [Gap(4 * TICKS, after=b"\x01", quiet=True), Audio(b"\x01")]
    assert buffer.counts.lost == 0


def test_a_pause_that_was_partly_filled_already_is_filled_up(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.0)
    assert buffer.poll(0.046) == [Gap(TICKS)]
    items = sender.send(1, 0.10, skipped_ticks=4 * TICKS)
    assert items == [Gap(3 * TICKS, after=b"\x01", quiet=True), Audio(b"\x01")]


def test_a_stream_that_stops_is_let_go_and_starts_afresh(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.0)
    gaps = [item for step in range(100) for item in buffer.poll(step * 0.02)]
    assert sum(gap.ticks for gap in gaps if isinstance(gap, Gap)) == MAX_GAP_S * HZ
    assert not buffer.running
    assert buffer.deadline is None
    assert numbers(sender.send(1, 100.0, skipped_ticks=99 * HZ)) == [1]


def test_a_leap_in_time_starts_afresh(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.0)
    assert numbers(sender.send(1, 0.02, skipped_ticks=100 * HZ)) == [1]
    assert buffer.counts.restarts == 1


def test_a_path_that_has_become_much_longer_is_followed(buffer: JitterBuffer, sender: Sender) -> None:
    out: list[int | None] = []
    for number in range(200):
        late = 1.0 if number >= 50 else 0.0
        now = number * 0.02 + late
        if number == 50:
            for step in range(50):
                buffer.poll(1.0 + step * 0.02)
        out += numbers(sender.send(number, now))
    assert out[-1] == 199
    assert None not in out[-100:]


def test_what_is_held_is_bounded(buffer: JitterBuffer, sender: Sender) -> None:
    sender.send(0, 0.0)
    out = [item for number in range(2, 2 * MAX_HELD) for item in sender.send(number, 0.001)]
    assert len(buffer._held) <= MAX_HELD
    assert numbers(out)[-1] == 2 * MAX_HELD - 1


def test_the_wait_grows_with_jitter_and_shrinks_again() -> None:
    lateness = Lateness()
    for i in range(200):
        lateness.add(5.0 + (0.08 if i % 4 == 0 else 0.0))
    assert 0.08 <= lateness.wait_s <= 0.1
    for _ in range(210):
        lateness.add(5.0)
    assert lateness.wait_s == MIN_WAIT_S
    for i in range(200):
        lateness.add(5.0 + i % 2)
    assert lateness.wait_s == MAX_WAIT_S


def test_a_few_stragglers_do_not_make_everybody_wait() -> None:
    lateness = Lateness()
    for i in range(200):
        lateness.add(0.2 if i == 100 else 0.0)
    assert lateness.wait_s == MIN_WAIT_S


packets = st.tuples(
    st.integers(0, 3), st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(1, 5760), st.booleans()
)
near = st.tuples(
    st.just(1), st.integers(0, 300), st.integers(0, 300_000), st.sampled_from([120, 960, 2880]), st.booleans()
)


@settings(max_examples=200, deadline=None)
@given(st.lists(packets | near, max_size=300), st.lists(st.floats(0, 0.2), min_size=300, max_size=300))
def test_whatever_comes_it_stays_bounded_and_goes_forward(
    sent: list[tuple[int, int, int, int, bool]], pauses: list[float]
) -> None:
    """No crash, no growth, and never more audio made up than the packets that are held can be apart."""
    buffer = JitterBuffer(HZ)
    now = 1000.0
    for (ssrc, sequence, timestamp, ticks, poll), pause in zip(sent, pauses, strict=False):
        now += pause
        items = buffer.push(ssrc, sequence, timestamp, ticks, b"x", now)
        if poll:
            made = buffer.poll(now)
            made_up = sum(item.ticks for item in made if isinstance(item, Gap) and not item.quiet)
            assert made_up <= (JUMP_S + MAX_GAP_S + 0.2) * HZ
            items += made
        assert len(buffer._held) <= MAX_HELD
        assert buffer._played_set == set(buffer._played)
        assert len(buffer._played) <= MAX_HELD
        assert all(item.ticks > 0 for item in items if isinstance(item, Gap))
    # And a clean stream after it is heard whole.
    sender = Sender(buffer, ssrc=9, timestamp=77)
    assert numbers([item for i in range(50) for item in sender.send(i, now + 1 + i * 0.02)]) == list(range(50))
