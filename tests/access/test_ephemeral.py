"""Keys of a short life: for whom they act, until when, and which are none."""

from __future__ import annotations

import base64
import hashlib

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.access.credentials import Authenticator, Key
from rtc_server.access.ephemeral import PREFIX, EphemeralKeys
from rtc_server.access.principals import ANONYMOUS, Principal
from rtc_server.errors import Forbidden, TooLarge

NOW = 1_800_000_000.0
KIOSK = Principal("key/kiosk", frozenset({"dialogue", "echo"}), max_session_s=60, operator=True)
AUTHENTICATOR = Authenticator([Key(hashlib.sha256(b"secret").digest(), KIOSK)])


def test_it_acts_for_the_client_that_asked_but_looks_after_no_server() -> None:
    keys = EphemeralKeys()
    key, expires_at = keys.issue(KIOSK, NOW, 600)
    assert key.startswith("ek_")
    assert expires_at == NOW + 600
    found = keys.find(key, NOW, AUTHENTICATOR)
    assert found is not None
    assert (found.name, found.services, found.max_session_s) == (KIOSK.name, KIOSK.services, 60)
    assert not found.operator
    assert found.expires_at == expires_at


def test_it_opens_one_service_if_it_was_asked_for_one() -> None:
    keys = EphemeralKeys()
    found = keys.find(keys.issue(KIOSK, NOW, 600, "echo")[0], NOW, AUTHENTICATOR)
    assert found is not None
    assert found.services == {"echo"}
    with pytest.raises(Forbidden):
        keys.issue(KIOSK, NOW, 600, "transcribe")


def test_it_expires_and_no_later_than_the_token_that_it_was_asked_for_with() -> None:
    keys = EphemeralKeys()
    key, _ = keys.issue(KIOSK, NOW, 600)
    assert keys.find(key, NOW + 599.9, AUTHENTICATOR) is not None
    assert keys.find(key, NOW + 600, AUTHENTICATOR) is None
    token = Principal("sub/ada", expires_at=NOW + 20)
    key, expires_at = keys.issue(token, NOW, 600)
    assert expires_at == NOW + 20
    assert keys.find(key, NOW + 20, AUTHENTICATOR) is None


def test_it_makes_no_other_and_so_it_does_expire() -> None:
    keys = EphemeralKeys()
    found = keys.find(keys.issue(KIOSK, NOW, 600)[0], NOW, AUTHENTICATOR)
    assert found is not None
    with pytest.raises(Forbidden):
        keys.issue(found, NOW, 600)


def test_it_goes_with_the_key_that_it_was_made_with() -> None:
    keys = EphemeralKeys()
    key, _ = keys.issue(KIOSK, NOW, 600)
    assert keys.find(key, NOW, Authenticator([])) is None


def test_on_an_open_server_it_says_which_service_it_is_for() -> None:
    keys = EphemeralKeys()
    found = keys.find(keys.issue(ANONYMOUS, NOW, 600, "echo")[0], NOW, None)
    assert found is not None
    assert (found.name, found.services) == (ANONYMOUS.name, {"echo"})


def test_one_of_another_server_opens_nothing() -> None:
    key, _ = EphemeralKeys().issue(KIOSK, NOW, 600)
    assert EphemeralKeys().find(key, NOW, AUTHENTICATOR) is None


def test_a_name_that_makes_it_too_long_is_refused_when_it_is_made() -> None:
    many = Principal("sub/x", frozenset(f"{number:0100}" for number in range(60)))
    with pytest.raises(TooLarge):
        EphemeralKeys().issue(many, NOW, 600)


def test_an_unsigned_one_opens_nothing() -> None:
    claims = {"aud": "client-secret", "exp": NOW + 60, "sub": "key/kiosk"}
    assert EphemeralKeys().find(PREFIX + jwt.encode(claims, "", algorithm="none"), NOW, AUTHENTICATOR) is None


@given(st.text(max_size=300), st.binary(max_size=100))
def test_whatever_strangers_send_opens_nothing(text: str, raw: bytes) -> None:
    keys = EphemeralKeys()
    key, _ = keys.issue(KIOSK, NOW, 600)
    head, _, _ = key.rpartition(".")
    forged = f"{head}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"
    for each in (text, PREFIX + text, forged, key + "x" * 5000, key.removeprefix(PREFIX)):
        assert keys.find(each, NOW, AUTHENTICATOR) is None
