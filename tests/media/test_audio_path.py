"""What a listener hears of a microphone behind a bad network: the media path as a whole, in virtual time.

The figures are those that the server promises (docs/benchmarks.md measures them on a clock).
"""

from __future__ import annotations

import pytest

from tests.support import virtual_time
from tests.support.audio_path import Heard, Network, send_through

pytestmark = pytest.mark.slow

CLEAN = Network()


def clean_delay(seed: int = 0) -> float:
    return send_through(CLEAN, 20, seed=seed).delay(2, 20)


def added_ms(heard: Heard, start_s: float, end_s: float) -> float:
    """What the server adds to the delay, less the frame it has to collect: capture to packet is 20 ms, the simulated
    path another 20."""
    return heard.delay(start_s, end_s) - 40 - 80


def test_a_clean_network_is_heard_whole_and_at_once() -> None:
    heard = send_through(CLEAN, 30)
    assert heard.longest_gap() == 0
    assert heard.concealed_share == 0
    assert heard.worst_delay(1, 30) - heard.delay(1, 30) < 1
    assert added_ms(heard, 1, 30) <= 25


def test_one_lost_packet_is_concealed_and_costs_no_delay() -> None:
    """aiortc's own buffer stalls for 320 ms here, and stays 280 ms late for the rest of the call."""
    heard = send_through(Network(lost=lambda t, _: 9.99 < t < 10.01), 15)
    assert heard.jitter.lost == 1
    assert heard.longest_gap() == 0
    assert heard.worst_delay(11, 15) - heard.delay(2, 9) < 1


@pytest.mark.parametrize("phase_ms", [0.1, *range(1, 10)])
def test_wherever_a_call_begins_between_two_ticks_a_lost_packet_is_no_hole(
    phase_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first packet is put on a tick of the wheel, up to 10 ms later: never earlier, which would cost reserve."""
    monkeypatch.setattr(virtual_time, "START_S", virtual_time.START_S + phase_ms / 1000)
    heard = send_through(Network(lost=lambda t, _: 5.99 < t < 6.01), 10)
    assert heard.jitter.lost == 1
    assert heard.longest_gap() == 0
    assert heard.worst_delay(7, 10) - heard.delay(2, 5) < 1
    assert added_ms(heard, 1, 10) <= 25


@pytest.mark.parametrize("seed", range(5))
def test_five_percent_loss_and_30_ms_of_jitter(seed: int) -> None:
    network = Network(lost=lambda _, r: r.random() < 0.05, late_s=lambda _, r: r.uniform(0, 0.030))
    heard = send_through(network, 60, seed=seed)
    assert heard.longest_gap() <= 60
    assert heard.delay(2, 60) - clean_delay(seed) <= 40
    assert heard.frames_to_model == pytest.approx(60 * 12.5, abs=3)
    assert heard.concealed_share < 0.08


@pytest.mark.parametrize("seed", range(5))
def test_a_bad_five_seconds_leave_no_delay_behind(seed: int) -> None:
    def bad(t: float) -> bool:
        return 5 < t < 10

    network = Network(
        lost=lambda t, r: bad(t) and r.random() < 0.2, late_s=lambda t, r: r.uniform(0, 0.06) if bad(t) else 0.0
    )
    heard = send_through(network, 20, seed=seed)
    assert heard.worst_delay(12, 20) - heard.delay(1, 5) <= 15
    assert heard.longest_gap(12) == 0


def test_reordered_and_duplicated_packets_are_put_right() -> None:
    network = Network(late_s=lambda t, _: 0.025 if int(t * 50) % 7 == 0 else 0.0, twice=lambda _, r: r.random() < 0.1)
    heard = send_through(network, 30)
    assert heard.jitter.duplicate > 50
    assert heard.concealed_share < 0.01
    assert heard.longest_gap(2) == 0


@pytest.mark.parametrize("queued", [False, True], ids=["lost", "queued"])
def test_an_outage_of_two_seconds_is_over_when_it_is_over(queued: bool) -> None:
    """Whether the packets are lost or all come at its end."""
    if queued:
        network = Network(late_s=lambda t, _: 12 - t if 10 < t < 12 else 0.0)
    else:
        network = Network(lost=lambda t, _: 10 < t < 12)
    heard = send_through(network, 20)
    assert heard.delay(14, 20) - heard.delay(2, 10) <= 15
    assert heard.longest_gap(14) == 0
    assert heard.frames_to_model == pytest.approx(20 * 12.5, abs=4)


@pytest.mark.timeout(300)  # some seconds of work, on a machine that may have other
@pytest.mark.parametrize("drift_ppm", [-200, 200])
def test_a_drifting_clock_adds_no_delay_in_ten_minutes(drift_ppm: int) -> None:
    heard = send_through(Network(drift_ppm=drift_ppm), 600)
    # The sender's own clock has moved against ours by then: that is not our delay.
    drifted_ms = 600 * 1000 * drift_ppm * 1e-6
    assert heard.delay(590, 600) + drifted_ms - heard.delay(1, 5) == pytest.approx(0, abs=45)
    assert heard.longest_gap() <= 20
    assert heard.dropped_frames == 0


def test_a_longer_path_is_followed() -> None:
    """The network gets slower by 100 ms in mid-call, for good: what it adds is heard, and no more."""
    heard = send_through(Network(late_s=lambda t, _: 0.1 if t > 10 else 0.0), 25)
    assert heard.delay(20, 25) - heard.delay(2, 10) <= 100
    assert heard.longest_gap(12) == 0


def test_a_path_longer_than_the_buffer_waits_starts_afresh() -> None:
    heard = send_through(Network(late_s=lambda t, _: 0.5 if t > 10 else 0.0), 25)
    assert heard.jitter.restarts >= 1
    assert heard.delay(20, 25) - heard.delay(2, 10) <= 500
    assert heard.longest_gap(13) == 0


def test_an_engine_that_is_late_now_and_then_leaves_no_delay_behind() -> None:
    late = send_through(CLEAN, 40, engine_s=lambda t, r: 0.12 if t < 20 and r.random() < 0.02 else 0.002)
    assert late.delay(25, 40) - clean_delay() <= 15
    assert late.longest_gap() <= 120
