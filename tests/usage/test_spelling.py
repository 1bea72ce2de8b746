"""Which known name was meant: the nearest by edits, by its beginning, by what it has in common; or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.usage.spelling import did_you_mean, edits, nearest

KNOWN = ["auth", "host", "port", "tls", "tls_cert", "turn_urls", "turn_secret", "allow_origins", "public_ip"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("abc", "abc", 0),
        ("trun", "turn", 1),
        ("ahtu", "auth", 2),
        ("kitten", "sitting", 3),
        ("ca", "abc", 3),
    ],
)
def test_edits(one: str, other: str, expected: int) -> None:
    assert edits(one, other) == expected


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_edits_are_a_distance(one: str, other: str) -> None:
    distance = edits(one, other)
    assert distance == edits(other, one)
    assert (distance == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ahtu", "auth"),
        ("AUTH", "auth"),
        ("auth ", "auth"),
        ("auth_file", "auth"),
        ("authentication", "auth"),
        ("trun_urls", "turn_urls"),
        ("--turn-url", "turn_urls"),
        ("TLS.CERT", "tls_cert"),
        ("tls_certificate", "tls_cert"),
        ("secret", "turn_secret"),
        ("origins", "allow_origins"),
        ("publicip", "public_ip"),
        ("hostname", "host"),
    ],
)
def test_the_name_that_was_meant(name: str, meant: str) -> None:
    assert nearest(name, KNOWN) == meant
    assert did_you_mean(name, KNOWN) == f" Did you mean {meant}?"


@pytest.mark.parametrize("name", ["", "_", "x", "unknown", "zzzz", "q" * 100_000])
def test_a_name_that_is_like_none(name: str) -> None:
    assert nearest(name, KNOWN) is None
    assert did_you_mean(name, KNOWN) == ""
    assert nearest(name, []) is None
