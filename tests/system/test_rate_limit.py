"""The token bucket lets a burst through at once and its rate in the long run, and never more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server.system.rate_limit import Buckets, TokenBucket

START_S = 1000.0


def test_a_burst_passes_at_once_and_no_more() -> None:
    bucket = TokenBucket(rate_per_s=20, burst=50, now=START_S)
    assert [bucket.allow(START_S) for _ in range(60)] == [True] * 50 + [False] * 10


def test_one_more_passes_when_its_time_has_come() -> None:
    bucket = TokenBucket(rate_per_s=4, burst=1, now=START_S)
    assert bucket.allow(START_S)
    assert not bucket.allow(START_S + 0.125)
    assert bucket.allow(START_S + 0.25)
    assert not bucket.allow(START_S + 0.25)


def test_what_is_refused_costs_nothing() -> None:
    """A client that keeps knocking is let in as soon as one that waits."""
    knocking, waiting = (TokenBucket(4, 1, START_S) for _ in range(2))
    assert knocking.allow(START_S)
    assert waiting.allow(START_S)
    assert not any(knocking.allow(START_S + i / 64) for i in range(16))
    assert knocking.allow(START_S + 0.25)
    assert waiting.allow(START_S + 0.25)


def test_quiet_time_fills_the_bucket_to_its_rim_only() -> None:
    bucket = TokenBucket(rate_per_s=20, burst=5, now=START_S)
    assert sum(bucket.allow(START_S + 3600) for _ in range(100)) == 5


def test_in_the_long_run_the_rate_holds() -> None:
    bucket = TokenBucket(rate_per_s=20, burst=50, now=START_S)
    allowed = sum(bucket.allow(START_S + i / 128) for i in range(128 * 60))
    assert allowed == pytest.approx(50 + 20 * 60, abs=1)


@settings(deadline=None)
@given(
    rate_per_s=st.floats(0.1, 100),
    burst=st.integers(1, 100),
    waits_s=st.lists(st.floats(0, 2), max_size=200),
)
def test_never_more_than_the_burst_and_the_rate(rate_per_s: float, burst: int, waits_s: list[float]) -> None:
    now = START_S
    bucket = TokenBucket(rate_per_s, burst, now)
    allowed = 0
    for wait_s in waits_s:
        now += wait_s
        allowed += bucket.allow(now)
        assert allowed <= burst + (now - START_S) * rate_per_s + 1e-6


def test_how_long_until_the_next() -> None:
    bucket = TokenBucket(rate_per_s=0.5, burst=1, now=START_S)
    assert bucket.wait_s() == 0
    assert bucket.allow(START_S)
    assert bucket.wait_s() == 2
    assert not bucket.allow(START_S + 1)
    assert bucket.wait_s() == 1


def test_each_name_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(rate_per_s=1, burst=2, limit=10)
    assert [buckets.wait_s("a", START_S) for _ in range(4)] == [0, 0, 1, 1]
    assert buckets.wait_s("b", START_S) == 0
    assert buckets.wait_s("a", START_S + 1) == 0


def test_ten_thousand_in_a_minute_are_refused_but_for_the_rate() -> None:
    buckets = Buckets(rate_per_s=2, burst=60, limit=10)
    passed = sum(not buckets.wait_s("a", START_S + number * 0.006) for number in range(10_000))
    assert passed == 60 + 2 * 60 - 1


def test_who_was_not_seen_for_longest_is_forgotten() -> None:
    """However many addresses somebody has, the table stays small; whoever goes on asking stays in it."""
    buckets = Buckets(rate_per_s=0.001, burst=1, limit=100)
    assert buckets.wait_s("stays", START_S) == 0
    for number in range(10_000):
        assert buckets.wait_s(f"passes {number}", START_S) == 0
        assert len(buckets) <= 100
        if number % 50 == 0:
            assert buckets.wait_s("stays", START_S) > 0
    assert buckets.wait_s("passes 0", START_S) == 0
