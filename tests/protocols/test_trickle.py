"""Candidates that come after an offer, as SDP fragments and as JSON."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.errors import BadCandidate
from rtc_server.protocols.trickle import Fragment, SectionCandidate, parse_fragment, parse_json

# RFC 8840, section 9.2, with the candidates of two sections.
FRAGMENT = (
    "a=ice-options:trickle ice2\r\n"
    "a=group:BUNDLE 0 1\r\n"
    "a=ice-ufrag:1Bfp\r\n"
    "a=ice-pwd:GIQdB3WzPlPfIS7Bvb4yVJyf\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
    "a=mid:0\r\n"
    "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0\r\n"
    "a=candidate:3471623853 1 udp 2122194687 198.51.100.2 61765 typ host\r\n"
    "m=application 9 UDP/DTLS/SCTP 0\r\n"
    "a=mid:1\r\n"
    "a=candidate:1 1 udp 1 203.0.113.1 3000 typ relay raddr 0.0.0.0 rport 0\r\n"
    "a=end-of-candidates\r\n"
)


def test_a_fragment_has_its_candidates_and_its_generation() -> None:
    parsed = parse_fragment(FRAGMENT.encode())
    assert (parsed.ufrag, parsed.password) == ("1Bfp", "GIQdB3WzPlPfIS7Bvb4yVJyf")
    assert [candidate.mid for candidate in parsed.candidates] == ["0", "0", "1"]
    assert parsed.candidates[0].text.startswith("candidate:1387637174 1 udp")


def test_the_end_alone_is_a_fragment() -> None:
    assert parse_fragment(b"a=end-of-candidates") == Fragment()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n\r\n",
        b"v=0\r\n",
        b"candidate:1 1 udp 1 192.0.2.1 1 typ host",
        b"{}",
        b"\xff\xfe",
        b"m=audio\r\n",
        b"a=ice-ufrag:abcd\r\na=ice-ufrag:efgh\r\n",
        b"a=mid:0\r\n" * 513,
    ],
)
def test_what_is_no_fragment_is_refused(raw: bytes) -> None:
    with pytest.raises(BadCandidate):
        parse_fragment(raw)


def test_json_as_browsers_make_it() -> None:
    body = {
        "candidates": [
            {"candidate": "candidate:1 1 udp 1 192.0.2.1 1 typ host", "sdpMid": "0", "sdpMLineIndex": 0,
             "usernameFragment": "abcd"},
            {"candidate": "", "sdpMid": "0"},
        ],
        "complete": True,
    }  # fmt: skip
    parsed = parse_json(json.dumps(body).encode())
    assert parsed.candidates == (SectionCandidate("candidate:1 1 udp 1 192.0.2.1 1 typ host", "0"),)
    assert parsed.ufrag == "abcd"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        '{"candidates": {}}',
        '{"candidates": [{}]}',
        '{"candidates": [1]}',
        '{"candidates": [{"candidate": 1}]}',
        '{"candidates": [], "more": 1}',
        '{"candidates": [{"candidate": "a", "usernameFragment": "a"}, {"candidate": "a", "usernameFragment": "b"}]}',
        '{"candidates": ' + "[" * 5000,
    ],
)
def test_json_that_is_something_else_is_refused(body: str) -> None:
    with pytest.raises(BadCandidate):
        parse_json(body.encode())


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_else(raw: bytes) -> None:
    for parse in (parse_fragment, parse_json):
        with contextlib.suppress(BadCandidate):
            assert isinstance(parse(raw), Fragment)


@given(st.lists(st.sampled_from(FRAGMENT.split("\r\n")), max_size=30))
def test_lines_in_any_order_raise_nothing_else(lines: list[str]) -> None:
    with contextlib.suppress(BadCandidate):
        assert len(parse_fragment("\r\n".join(lines).encode()).candidates) <= len(lines)
