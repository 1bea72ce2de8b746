"""Which names are ours: this machine's own, and those that are configured; and what is no name at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.access.hosts import Authority, Hosts, parse_authority, parse_public_url
from rtc_server.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", None),
        ("LocalHost:8080", "localhost", 8080),
        ("localhost.", "localhost", None),
        ("localhost.:80", "localhost", 80),
        ("localhost:", "localhost", None),
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]", "::1", None),
        ("[::1]:8080", "::1", 8080),
        ("[0:0:0:0:0:0:0:1]:1", "::1", 1),
        ("[2001:DB8::1]", "2001:db8::1", None),
        ("my_host-1.example:65535", "my_host-1.example", 65535),
    ],
)
def test_hosts_as_requests_name_them(text: str, host: str, port: int | None) -> None:
    assert parse_authority(text) == Authority(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        ":8080",
        "::1",
        "[::1",
        "[localhost]",
        "[::1]x",
        "localhost:x",
        "localhost:65536",
        "localhost:-1",
        "localhost:8080:8080",
        "user@localhost",
        "localhost/x",
        "localhost, evil.example",
        "local host",
        "localhost\t",
        "lo\u212balhost",
        "x" * 301,
    ],
)
def test_what_is_no_host(text: str) -> None:
    assert parse_authority(text) is None


def names(text: str) -> str:
    authority = parse_authority(text)
    assert authority is not None
    return authority.host


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "voice.localhost:8080",
        "voice.localhost.",
        "127.0.0.1",
        "127.255.255.254:9",
        "[::1]:8080",
        "[::ffff:127.0.0.1]",
    ],
)
def test_this_machines_own_names(text: str) -> None:
    assert Hosts().answers_to(names(text))


@pytest.mark.parametrize(
    "text",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evillocalhost",
        "localhosts",
        "0.0.0.0",
        "192.168.1.7",
        "[::]",
        "[2001:db8::1]",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
    ],
)
def test_others(text: str) -> None:
    """Unless they are named."""
    host = names(text)
    if host != "127.0.0.1":
        assert not Hosts().answers_to(host)
    assert Hosts([host]).answers_to(host)
    assert Hosts(any_name=True).answers_to(host)


@pytest.mark.parametrize(
    ("text", "url", "origin"),
    [
        ("https://voice.example.com", "https://voice.example.com/", ("https", "voice.example.com", 443)),
        ("https://example.com/voice", "https://example.com/voice/", ("https", "example.com", 443)),
        ("https://example.com/voice/", "https://example.com/voice/", ("https", "example.com", 443)),
        ("http://10.0.0.7:8080/a/b", "http://10.0.0.7:8080/a/b/", ("http", "10.0.0.7", 8080)),
        ("http://[::1]:8080", "http://[::1]:8080/", ("http", "::1", 8080)),
    ],
)
def test_public_urls(text: str, url: str, origin: tuple[str, str, int]) -> None:
    parsed = parse_public_url(text)
    assert (parsed.text, parsed.origin) == (url, origin)


@pytest.mark.parametrize(
    "text",
    [
        "voice.example.com",
        "https://",
        "ftp://a.example",
        "https://a.example?x",
        "https://a.example/#x",
        "https://a b",
        "https://u@a.example",
        "https://a.example:x",
        "//a.example",
        "https://a.exa\nmple",
        "https://ä.example",
        "https://[::1",
    ],
)
def test_what_is_no_public_url(text: str) -> None:
    with pytest.raises(ConfigError, match="--public-url") as refused:
        parse_public_url(text)
    assert refused.value.hint


@given(st.text(max_size=60))
def test_any_text_is_a_host_or_not(text: str) -> None:
    authority = parse_authority(text)
    assert authority is None or authority.host
