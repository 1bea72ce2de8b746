"""The model of a network path: seeded, and as bad as it was told to be."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.network.link import Link, LinkSettings, Outage

PACKET_S = 0.02
SIZE = 100


def deliveries(link: Link, packets: int, packet_s: float = PACKET_S) -> list[list[float]]:
    """For each of so many packets, one every ``packet_s``: when it arrives."""
    return [link.send(number * packet_s, SIZE) for number in range(packets)]


def lost_share(times: list[list[float]]) -> float:
    return sum(not each for each in times) / len(times)


def test_a_clean_link_delivers_at_once() -> None:
    """Every packet once, without a delay."""
    assert deliveries(Link(LinkSettings(), seed=1), 50) == [[number * PACKET_S] for number in range(50)]


def test_a_seed_decides_everything() -> None:
    """The same seed gives the same deliveries, another one others."""
    bad = LinkSettings(loss=0.1, delay_ms=50, jitter_ms=30, reorder=0.1, duplicate=0.1)
    assert deliveries(Link(bad, seed=7), 500) == deliveries(Link(bad, seed=7), 500)
    assert deliveries(Link(bad, seed=7), 500) != deliveries(Link(bad, seed=8), 500)


def test_losses_stay_the_same_when_other_settings_change() -> None:
    """So that two runs with different jitter lose the same packets."""
    plain = deliveries(Link(LinkSettings(loss=0.2), seed=3), 500)
    jittery = LinkSettings(loss=0.2, delay_ms=40, jitter_ms=20, reorder=0.1, duplicate=0.3)
    assert [not each for each in plain] == [not each for each in deliveries(Link(jittery, seed=3), 500)]


@pytest.mark.parametrize("loss", [0.002, 0.05, 0.2])
@pytest.mark.parametrize("run", [0.0, 3.0])
def test_the_loss_is_the_one_asked_for(loss: float, run: float) -> None:
    """Within a fifth and a little, independent or in runs."""
    times = deliveries(Link(LinkSettings(loss=loss, loss_run=run), seed=1), 50_000)
    assert lost_share(times) == pytest.approx(loss, rel=0.2, abs=0.001)


def test_runs_of_losses_are_as_long_as_asked_for() -> None:
    """A mean of four in a row, where independent losses of 10 % come singly."""
    times = deliveries(Link(LinkSettings(loss=0.1, loss_run=4), seed=2), 50_000)
    runs = [len(list(group)) for lost, group in itertools.groupby(times, key=lambda each: not each) if lost]
    assert sum(runs) / len(runs) == pytest.approx(4, rel=0.1)


def test_everything_or_nothing() -> None:
    """A loss of 1 loses everything, of 0 nothing, in runs or not."""
    for run in (0.0, 5.0):
        assert lost_share(deliveries(Link(LinkSettings(loss=1.0, loss_run=run), seed=1), 200)) == 1
        assert lost_share(deliveries(Link(LinkSettings(loss=0.0, loss_run=run), seed=1), 200)) == 0


def test_delay_and_jitter_stay_within_their_interval() -> None:
    """Evenly over delay ± jitter; packets overtake each other."""
    times = deliveries(Link(LinkSettings(delay_ms=50, jitter_ms=30), seed=1), 5000)
    delays = [at - number * PACKET_S for number, (at,) in enumerate(times)]
    assert min(delays) >= 0.020 - 1e-9
    assert max(delays) <= 0.080 + 1e-9
    assert sum(delays) / len(delays) == pytest.approx(0.050, abs=0.002)
    arrivals = [at for (at,) in times]
    assert arrivals != sorted(arrivals)


def test_a_packet_never_arrives_before_it_is_sent() -> None:
    """Jitter larger than the delay is cut off at nothing."""
    times = deliveries(Link(LinkSettings(delay_ms=5, jitter_ms=50), seed=1), 2000)
    assert all(at >= number * PACKET_S for number, (at,) in enumerate(times))


def test_a_link_that_keeps_order_lets_nobody_overtake() -> None:
    """Jitter then makes packets wait for each other, and none is later than the latest could be."""
    times = deliveries(Link(LinkSettings(delay_ms=50, jitter_ms=45, in_order=True), seed=1), 5000)
    arrivals = [at for (at,) in times]
    assert arrivals == sorted(arrivals)
    assert all(at - number * PACKET_S <= 0.095 + 1e-9 for number, at in enumerate(arrivals))


def test_reordered_packets_are_overtaken() -> None:
    """A tenth of them, even on a link that keeps order; the others do not wait for them."""
    held = LinkSettings(reorder=0.1, reorder_ms=60, in_order=True)
    link = Link(held, seed=1)
    times = deliveries(link, 5000)
    late = sum(at - number * PACKET_S > 0.059 for number, (at,) in enumerate(times))
    assert late == link.counts.held_back
    assert late / 5000 == pytest.approx(0.1, rel=0.2)
    assert sum(at == number * PACKET_S for number, (at,) in enumerate(times)) == 5000 - late


def test_duplicates_come_twice() -> None:
    """A quarter of them, the second not before the first."""
    times = deliveries(Link(LinkSettings(duplicate=0.25, delay_ms=20, jitter_ms=10), seed=1), 5000)
    twice = [each for each in times if len(each) == 2]
    assert len(twice) / 5000 == pytest.approx(0.25, rel=0.1)
    assert all(first <= second for first, second in twice)


def test_an_outage_has_a_beginning_and_an_end() -> None:
    """Nothing for its window, counted from when the settings were applied; everything outside of it."""
    link = Link(LinkSettings(), seed=1)
    link.apply(LinkSettings(outages=(Outage(1.0, 2.0),)), now=10.0)
    through = {at for tenth in range(100, 150) for at in link.send(tenth / 10, SIZE)}
    assert through == {tenth / 10 for tenth in range(100, 150) if not 11.0 <= tenth / 10 < 13.0}


def test_an_outage_that_repeats() -> None:
    """One second of every five, from the third on."""
    outage = Outage(start_s=3, length_s=1, every_s=5)
    assert [second for second in range(20) if outage.covers(second)] == [3, 8, 13, 18]


def test_a_rate_limit_spaces_packets_and_drops_what_its_queue_cannot_hold() -> None:
    """172 + 28 bytes at 16 kb/s take 100 ms each: a burst leaves one by one, and ends with the queue."""
    link = Link(LinkSettings(rate_kbps=16, queue_ms=250), seed=1)
    times = [link.send(0.0, 172) for _ in range(6)]
    assert [round(at, 6) for each in times for at in each] == [0.1, 0.2, 0.3]
    assert link.counts.queue_full == 3
    assert link.send(10.0, 172) == [pytest.approx(10.1)]


def test_packets_can_be_dropped_by_hand() -> None:
    """Exactly so many, and only of those that may be."""
    link = Link(LinkSettings(), seed=1)
    link.drop_next(2)
    assert link.send(0.0, SIZE, droppable=False) == [0.0]
    assert [link.send(0.0, SIZE) for _ in range(3)] == [[], [], [0.0]]


@pytest.mark.parametrize(
    "wrong", [{"loss": 1.5}, {"duplicate": -0.1}, {"delay_ms": -1}, {"loss": 0.1, "loss_run": 0.5}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """When they are made, not when a packet comes."""
    with pytest.raises(ValueError, match=r"shares|negative|packet long"):
        LinkSettings(**wrong)


shares = st.floats(0, 1)
milliseconds = st.floats(0, 500)


@given(
    st.builds(
        LinkSettings,
        loss=shares,
        delay_ms=milliseconds,
        jitter_ms=milliseconds,
        in_order=st.booleans(),
        reorder=shares,
        duplicate=shares,
        rate_kbps=st.floats(8, 1000),
    ),
    st.integers(),
)
@settings(max_examples=50, deadline=None)
def test_whatever_the_settings_time_runs_forward_and_every_packet_is_counted(chosen: LinkSettings, seed: int) -> None:
    """No packet arrives before it is sent, none thrice, and the counts add up."""
    link = Link(chosen, seed)
    times = deliveries(link, 100)
    assert all(at >= number * PACKET_S - 1e-9 for number, each in enumerate(times) for at in each)
    assert sum(not each for each in times) == link.counts.lost + link.counts.queue_full
    assert sum(len(each) == 2 for each in times) == link.counts.duplicated
    assert link.counts.offered == 100
    assert dataclasses.replace(chosen) == link.settings
