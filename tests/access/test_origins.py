"""Which web pages may come in: our own, those that are allowed, and no stranger's that looks like our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.access.hosts import Hosts, parse_public_url
from rtc_server.access.origins import Origins
from rtc_server.errors import ConfigError

LOCAL = Origins(hosts=Hosts())
"""As on a loopback server without keys."""
PUBLIC = Origins()


@pytest.mark.parametrize("rule", [LOCAL, PUBLIC], ids=["local", "public"])
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("http://LOCALHOST:8080", "localhost:8080"),
        ("http://voice.localhost:8080", "voice.localhost:8080"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("http://127.0.0.1", "127.0.0.1"),
        ("http://127.0.0.1", "127.0.0.1:80"),
        ("https://127.0.0.1", "127.0.0.1"),
        ("https://127.0.0.1", "127.0.0.1:443"),
        ("https://[::1]", "[::1]"),
    ],
)
def test_our_own(rule: Origins, origin: str, host: str) -> None:
    assert rule.is_ours(origin, host)


@pytest.mark.parametrize("rule", [LOCAL, PUBLIC], ids=["local", "public"])
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8081", "localhost:8080"),
        ("http://localhost", "localhost:8080"),
        ("http://localhost:8080", "localhost"),
        ("http://127.0.0.1:8080", "localhost:8080"),
        ("https://evil.example", "127.0.0.1:8080"),
        ("http://localhost.evil.example:8080", "localhost:8080"),
        ("http://evil-localhost:8080", "localhost:8080"),
        ("http://localhost:8080.evil.example", "localhost:8080"),
        ("http://localhost:8080@evil.example", "localhost:8080"),
        ("http://evil.example/localhost:8080", "localhost:8080"),
        ("http://localhost:8080/", "localhost:8080"),
        ("http://localhost:8080#", "localhost:8080"),
        ("file://localhost:8080", "localhost:8080"),
        ("chrome-extension://localhost:8080", "localhost:8080"),
        ("localhost:8080", "localhost:8080"),
        ("//localhost:8080", "localhost:8080"),
        ("null", "localhost:8080"),
        ("null", "null"),
        ("", ""),
        ("", "localhost:8080"),
        ("http://localhost:8080", ""),
        ("http://localhost:99999", "localhost:99999"),
        ("http://localhost:8080", "user@localhost:8080"),
        ("http://localhost:8080", "localhost:8080/x"),
        ("http://[::1", "[::1"),
        ("http://localhost:", "localhost:"),
    ],
)
def test_anothers(rule: Origins, origin: str, host: str) -> None:
    assert not rule.is_ours(origin, host)
    assert not rule.allows(origin)


def test_a_name_that_was_rebound() -> None:
    """evil.example points to 127.0.0.1 by now: its page's requests arrive here with its name in both headers."""
    for origin, host in (
        ("https://192.168.1.7:8080", "192.168.1.7:8080"),
        ("http://evil.example:8080", "evil.example:8080"),
        ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
        ("http://localhost.evil.example", "localhost.evil.example"),
        ("http://2130706433.example", "2130706433.example"),
    ):
        assert not LOCAL.is_ours(origin, host)
        assert PUBLIC.is_ours(origin, host)


def test_those_that_are_allowed() -> None:
    rule = Origins(["https://voice.example.com", "http://dev.example.com:3000", "https://[2001:db8::1]:8443"])
    for allowed in (
        "https://voice.example.com",
        "https://VOICE.example.com",
        "https://voice.example.com:443",
        "http://dev.example.com:3000",
        "https://[2001:db8::1]:8443",
    ):
        assert rule.allows(allowed)
    for other in (
        "http://voice.example.com",
        "https://voice.example.com:8443",
        "https://sub.voice.example.com",
        "https://voice.example.com.evil.example",
        "https://evilvoice.example.com",
        "http://dev.example.com",
        "null",
        "",
    ):
        assert not rule.allows(other)


APPLICATIONS = [
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "http://tauri.localhost",
    "chrome-extension://kbfnbcaeplbcioakkpcpgfkobkghlhen",
    "moz-extension://0b3c8a5e-1d2f-4c5b-9e8f-7a6b5c4d3e2f",
    "safari-web-extension://6FE6A5F1-4C56-4F4B-9C4B-4A8F0E6A2D11",
    "vscode-webview://1c2d3e",
    "app://-",
    "app://.",
    "app://obsidian.md",
    "app://localhost:3000",
    "file://",
]


@pytest.mark.parametrize("origin", APPLICATIONS)
def test_applications(origin: str) -> None:
    """They have origins of schemes of their own; each lets in itself alone."""
    rule = Origins([origin])
    assert rule.allows(origin)
    assert rule.allows(origin.upper())
    for other in (*(set(APPLICATIONS) - {origin}), f"{origin}x", "http://localhost", "https://localhost", "null"):
        assert not rule.allows(other)
        assert not Origins().allows(origin)
    assert not rule.is_ours(origin, "localhost")


def test_null_is_refused_with_a_sentence() -> None:
    for text in ("null", "NULL", " null "):
        with pytest.raises(ConfigError, match="every sandboxed frame") as refused:
            Origins([text])
        assert refused.value.hint


def test_our_own_page_behind_a_proxy_that_keeps_its_name() -> None:
    rule = Origins(hosts=Hosts(["voice.example.com"]), public=parse_public_url("https://voice.example.com/app/"))
    assert rule.is_ours("https://voice.example.com", "127.0.0.1:8080")
    assert rule.is_ours("http://voice.example.com:8080", "voice.example.com:8080")
    assert not rule.is_ours("http://voice.example.com", "127.0.0.1:8080")
    assert not rule.is_ours("https://evil.example", "127.0.0.1:8080")


def test_all_is_all() -> None:
    rule = Origins(["*"])
    assert rule.allows("https://evil.example")
    assert rule.allows("null")
    assert Origins(["https://a.example", "*"]).allows("https://b.example")


@pytest.mark.parametrize(
    "text",
    [
        "voice.example.com",
        "https://",
        "https://a.example/",
        "https://a.example/x",
        "https://a.example:",
        "https://a.example:99999",
        "https://a.exa\tmple",
        "capacitor://localhost/",
        "capacitor:localhost",
        "capacitor",
        "://localhost",
        "chrome-extension://",
        "file:///home",
        "data:text/html,x",
        "blob:https://a.example/x",
        "capacitor://*",
        "https://*.a.example",
        "",
    ],
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ConfigError, match="--allow-origins") as refused:
        Origins([text])
    assert refused.value.hint


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_ours_or_not(origin: str, host: str) -> None:
    for rule in (LOCAL, PUBLIC):
        rule.is_ours(origin, host)
        assert not rule.allows(origin)
