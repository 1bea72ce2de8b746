"""What one media node passes on to another is signed: nothing else counts as let in already."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.web.neighbours import Signatures
from rtc_server.web.passing import FORWARDED_FOR

SECRET = b"s" * 32
PATH = "/api/rooms/a-0-x/members?x=%2F"
ADDRESS = "192.0.2.1"
NOW = 1_800_000_000.0


def signatures(secret: bytes = SECRET, now: float = NOW) -> Signatures:
    return Signatures(lambda: secret, lambda: now)


def request(headers: dict[str, str], method: str = "POST", path: str = PATH) -> web.Request:
    return make_mocked_request(method, path, headers=headers)


def passed_on(address: str = ADDRESS) -> dict[str, str]:
    """The headers of a request that a node passes on for a client with this address."""
    return {**signatures().made(request({}), address), FORWARDED_FOR: address}


def test_a_request_that_is_passed_on_is_known_by_its_signature() -> None:
    assert signatures().signed(request(passed_on()))


@pytest.mark.parametrize(
    ("headers", "method", "path"),
    [
        ({}, "POST", "/api/rooms"),
        ({}, "POST", PATH + "&y=1"),
        ({}, "DELETE", PATH),
        ({FORWARDED_FOR: "198.51.100.1"}, "POST", PATH),
        ({FORWARDED_FOR: ""}, "POST", PATH),
    ],
)
def test_it_is_of_one_request_of_one_client(headers: dict[str, str], method: str, path: str) -> None:
    assert not signatures().signed(request({**passed_on(), **headers}, method, path))


@pytest.mark.parametrize(("late_s", "signed"), [(-61, False), (-59, True), (59, True), (61, False), (1e9, False)])
def test_it_is_good_for_a_minute_by_clocks_that_differ_by_one(late_s: float, signed: bool) -> None:
    assert signatures(now=NOW + late_s).signed(request(passed_on())) is signed


@pytest.mark.parametrize("secret", [b"", b"t" * 32, SECRET + b"s"])
def test_without_the_secret_none_is_made(secret: bytes) -> None:
    """And a server that does not know it yet believes none: one made with an empty secret neither."""
    assert not signatures(secret).signed(request(passed_on()))
    forged = {**signatures(b"").made(request({}), ADDRESS), FORWARDED_FOR: ADDRESS}
    assert not signatures(b"").signed(request(forged))


@given(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=80))
def test_nothing_else_is_a_signature_nor_an_error(text: str) -> None:
    given_at, _, digest = passed_on()["Neighbour"].partition(".")
    for header in (text, f"{given_at}.{text}", f"{text}.{digest}", f"{given_at}{text}.{digest}."):
        if header != f"{given_at}.{digest}":
            assert not signatures().signed(request({"Neighbour": header, FORWARDED_FOR: ADDRESS}))
