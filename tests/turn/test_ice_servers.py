"""What clients are told about STUN and TURN servers: URLs checked, credentials that expire, headers for WHIP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.config import Settings
from rtc_server.errors import ConfigError
from rtc_server.turn.ice_servers import IceServers, make_credentials, parse_uri, read_secret, user_key

SECRET = "north"
NOW = 1_700_000_000.9
URLS = (
    "turn:turn.example.org:3478",
    "turn:turn.example.org:3478?transport=tcp",
    "turns:turn.example.org?transport=tcp",
)


def servers(**fields: Any) -> IceServers:
    return IceServers(Settings(**{"turn_urls": URLS, "turn_secret": SECRET, **fields}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The table of RFC 7064, section 3.2 (appendix A), less stuns over UDP; and of RFC 7065, appendix A.
        ("stun:example.org", ("stun", "example.org", 3478, "udp")),
        ("stuns:example.org", ("stuns", "example.org", 5349, "tcp")),
        ("stun:example.org:8000", ("stun", "example.org", 8000, "udp")),
        ("turn:example.org", ("turn", "example.org", 3478, "udp")),
        ("turns:example.org", ("turns", "example.org", 5349, "tcp")),
        ("turn:example.org:8000", ("turn", "example.org", 8000, "udp")),
        ("turn:example.org?transport=udp", ("turn", "example.org", 3478, "udp")),
        ("turn:example.org?transport=tcp", ("turn", "example.org", 3478, "tcp")),
        ("turns:example.org?transport=tcp", ("turns", "example.org", 5349, "tcp")),
        ("turn:192.0.2.7:443?transport=tcp", ("turn", "192.0.2.7", 443, "tcp")),
        ("turn:[2001:db8::1]:3478", ("turn", "2001:db8::1", 3478, "udp")),
        ("TURN:Example.ORG?Transport=TCP", ("turn", "Example.ORG", 3478, "tcp")),
        ("turn:a", ("turn", "a", 3478, "udp")),
        ("turn:localhost.", ("turn", "localhost.", 3478, "udp")),
    ],
)
def test_uris_of_the_rfcs(text: str, expected: tuple[str, str, int, str]) -> None:
    uri = parse_uri(text)
    assert (uri.scheme, uri.host, uri.port, uri.transport) == expected
    assert uri.text == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "As stun:"),
        ("turn:", "As stun:"),
        ("example.org:3478", "As stun:"),
        ("http://example.org", "no slashes"),
        ("turn://example.org:3478", "no slashes"),
        ("turn:user@example.org", "As stun:"),
        ("turn:example.org:3478/path", "As stun:"),
        ("turn:example.org?transport=sctp", "As stun:"),
        ("turn:example.org?foo=bar", "As stun:"),
        ("turn:-example.org", "As stun:"),
        ("turn:exa mple.org", "As stun:"),
        ('turn:example.org"', "As stun:"),
        ("turn:example.org>", "As stun:"),
        ("turn:example.org\r\n", "As stun:"),
        ("turn:example.org:123456", "As stun:"),
        ("turn:2001:db8::1", "brackets"),
        ("turns:example.org?transport=udp", "transport=tcp"),
        ("stun:example.org?transport=udp", "Leave"),
    ],
)
def test_what_is_no_uri_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_uri(text)
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize("text", ["turn:example.org:0", "turn:example.org:65536", "turn:[::g]", "turn:[1.2.3.4]:1"])
def test_ports_and_addresses_that_do_not_exist(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_uri(text)


@given(
    st.sampled_from(["stun", "turn", "turns"]),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,5}){0,3}", fullmatch=True),
    st.none() | st.integers(1, 65535),
    st.sampled_from(["", "?transport=tcp"]),
)
def test_what_is_put_together_comes_apart_again(scheme: str, host: str, port: int | None, query: str) -> None:
    query = "" if scheme == "stun" else query
    uri = parse_uri(f"{scheme}:{host}{'' if port is None else f':{port}'}{query}")
    assert (uri.scheme, uri.host) == (scheme, host)
    assert uri.port == (port or (5349 if scheme == "turns" else 3478))


@given(st.text(max_size=60))
def test_whatever_is_typed_is_taken_or_refused(text: str) -> None:
    """And what is taken can stand in a header between angle brackets."""
    try:
        uri = parse_uri(text)
    except ConfigError:
        return
    assert re.fullmatch(r"[!-~]+", uri.text)
    assert not set(uri.text) & set('<>"\\')


def test_credentials_by_the_turn_rest_scheme() -> None:
    """Computed by hand with OpenSSL: printf 1700003600:alice | openssl dgst -sha1 -hmac north -binary | base64."""
    credentials = make_credentials(SECRET, "alice", 1_700_003_600)
    assert credentials.username == "1700003600:alice"
    assert credentials.password == "wjwSXO2ch1B6VaLTLMy2Avn5O9o="
    assert credentials.expires_at == 1_700_003_600


# Hypothesis draws string constants of the package, too: a secret that is also the name of a module or of a file would
# be found in what other tests log. No word of theirs begins like this.
SECRETS = st.text(max_size=39).map("~{}".format)


@given(SECRETS, st.text(max_size=40), st.integers(0, 2**33))
def test_a_password_is_the_hmac_of_its_username(secret: str, user: str, now: int) -> None:
    try:
        user.encode()
    except UnicodeEncodeError:
        return
    made = servers(turn_secret=secret).credentials(user, now)
    expiry, _, user_id = made.username.partition(":")
    assert int(expiry) == made.expires_at == now + 3600
    assert re.fullmatch(r"[a-z2-7]{20}", user_id)
    again = hmac.new(secret.encode(), made.username.encode(), hashlib.sha1).digest()
    assert base64.b64decode(made.password) == again


def test_a_user_keeps_their_id_and_nobody_can_tell_who_it_is() -> None:
    """For the relay's quotas; different for another user, and for another secret."""
    user = user_key("alice", "192.0.2.7")
    first, later = (servers().credentials(user, now) for now in (NOW, NOW + 1800))
    assert first.username != later.username
    ids = [made.username.partition(":")[2] for made in (first, later)]
    assert ids[0] == ids[1]
    assert "alice" not in first.username
    assert "192" not in ids[0]
    others = servers().credentials("bob", NOW), servers(turn_secret="south").credentials(user, NOW)
    assert len({ids[0], *(made.username.partition(":")[2] for made in others)}) == 3


def test_which_users_are_the_same() -> None:
    assert user_key("a", "2001:db8:1:2:3::4") == user_key("a", "2001:db8:1:2::ffff")
    assert user_key("a", "2001:db8:1:2::1") != user_key("a", "2001:db8:1:3::1")
    assert user_key("a", "::ffff:192.0.2.7") == user_key("a", "192.0.2.7")
    assert user_key("a", "192.0.2.7") != user_key("b", "192.0.2.7")
    assert user_key("a", "192.0.2.7") != user_key("a", "192.0.2.8")
    assert user_key("", "") == user_key("", "")
    assert user_key("a", "unknown") != user_key("b", "unknown")


def test_the_list_for_a_browser() -> None:
    made = servers(stun_urls=("stun:a.example", "stun:b.example")).for_user("alice", NOW)
    assert made[0] == {"urls": ["stun:a.example", "stun:b.example"]}
    assert made[1].keys() == {"urls", "username", "credential"}
    assert made[1]["urls"] == list(URLS)
    assert made[1]["username"].startswith("1700003600:")
    assert len(made) == 2


def test_how_long_it_is_valid() -> None:
    assert servers(turn_ttl_s=600).expires_in_s == 600
    assert servers(turn_ttl_s=600).for_user("alice", NOW)[0]["username"].startswith("1700000600:")
    assert IceServers(Settings(stun_urls=("stun:a.example",))).expires_in_s is None


def test_nothing_set_is_nothing_told() -> None:
    made = IceServers(Settings())
    assert (made.for_user("alice", NOW), made.link_headers("alice", NOW), made.urls) == ([], [], [])
    assert made.expires_in_s is None


def test_links_as_whip_wants_them() -> None:
    """RFC 9725, section 4.6: one link for each URL; the attributes are quoted strings."""
    made = servers(stun_urls=("stun:stun.example.net",))
    links = made.link_headers("alice", NOW)
    assert links[0] == '<stun:stun.example.net>; rel="ice-server"'
    mine = made.credentials("alice", NOW)
    assert links[1:] == [
        f'<{url}>; rel="ice-server"; username="{mine.username}"; credential="{mine.password}"; '
        'credential-type="password"'
        for url in URLS
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"turn_urls": ("turn:a",)}, "needs the secret"),
        ({"turn_urls": ("stun:a",), "turn_secret": "x"}, "--stun-urls"),
        ({"stun_urls": ("turn:a",)}, "--turn-urls"),
        ({"stun_urls": ("stun://a",)}, "not the URL"),
        ({"turn_urls": ("turn:a", "b"), "turn_secret": "x"}, "not the URL"),
        ({"turn_secret": "x", "turn_secret_file": "y"}, "both"),
    ],
)
def test_settings_that_cannot_work_stop_the_start(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IceServers(Settings(**fields))


def test_the_secret_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("  north\n")
    assert read_secret(Settings(turn_secret_file=str(file))) == "north"
    assert read_secret(Settings(turn_secret="south")) == "south"
    assert read_secret(Settings()) == ""


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_file_without_a_secret_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_secret(Settings(turn_secret_file=str(file)))
    assert refused.value.hint
    assert "north" not in str(refused.value)


def test_settings_do_not_show_the_secret() -> None:
    assert SECRET not in repr(Settings(turn_secret=SECRET))
