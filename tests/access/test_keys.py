"""Keys: what they open, and for whom."""

from __future__ import annotations

import hashlib
import re

import pytest

from rtc_server.access import credentials
from rtc_server.access.credentials import Authenticator, Key
from rtc_server.access.principals import ANONYMOUS, NOBODY, Principal
from rtc_server.errors import Unauthorized
from tests.support.tokens import KIOSK, NOW


def test_a_key_opens_and_is_an_operators() -> None:
    key = credentials.new_key()
    digest = bytes.fromhex(credentials.hash_of(key).removeprefix("sha256:"))
    others = [Key(hashlib.sha256(b"other%d" % n).digest(), Principal(f"key/{n}")) for n in range(5)]
    door = Authenticator([*others, Key(digest, KIOSK)])
    assert door.authenticate(key, NOW) is KIOSK
    for wrong in ("", key[:-1], key + "x", key.swapcase(), credentials.hash_of(key), digest.hex(), "é", "\0", "\ud800"):
        with pytest.raises(Unauthorized):
            door.authenticate(wrong, NOW)


def test_a_key_is_256_random_bits_that_fit_into_every_header() -> None:
    keys = {credentials.new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert re.fullmatch(r"rtc_[A-Za-z0-9_-]{43}", key)


def test_services() -> None:
    assert Principal("a").may_use("echo")
    assert Principal("a", frozenset({"echo"})).may_use("echo")
    assert not Principal("a", frozenset({"echo"})).may_use("moshi")
    assert not NOBODY.may_use("echo")
    assert not NOBODY.operator
    assert ANONYMOUS.may_use("echo")
    assert ANONYMOUS.operator
