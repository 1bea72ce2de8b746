"""Addresses, ports and candidates: what settings mean, and what a peer may name."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.config import Settings
from rtc_server.errors import BadCandidate, ConfigError
from rtc_server.webrtc.ice import MediaAddresses, parse_candidate

HOST = "candidate:1 1 udp 2130706431 {} 54321 typ host"


def addresses(**settings: object) -> MediaAddresses:
    return MediaAddresses.from_settings(dataclasses.replace(Settings(), **settings))  # type: ignore[arg-type]


def here() -> str:
    """An address of this machine that others can reach, or loopback where it has none."""
    return next(address for address in addresses().hosts() if ":" not in address)


def test_a_machine_without_a_network_talks_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtc_server.webrtc.ice._machine_addresses", lambda: iter([("lo", "127.0.0.1"), ("lo", "::1")]))
    assert addresses().hosts() == ["127.0.0.1", "::1"]
    monkeypatch.setattr(
        "rtc_server.webrtc.ice._machine_addresses", lambda: iter([("lo", "127.0.0.1"), ("e", "192.0.2.9")])
    )
    assert addresses().hosts() == ["192.0.2.9"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("udp_ports", text) for text in ("80", "50100-50000", "a-b", "50000-", "50000-70000", "50000 - 50001", "-1")),
        *(("public_ip", text) for text in ("somewhere", "203.0.113.7/nowhere", "203.0.113.7/198.51.100.9", "1.2.3")),
        ("interfaces", ("no-such-interface",)),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting: str, value: object) -> None:
    option = "--" + setting.replace("_", "-")
    with pytest.raises(ConfigError, match=option):
        addresses(**{setting: value})


def test_advice_names_the_ports_and_no_address() -> None:
    assert "UDP 50000-50100" in addresses(udp_ports="50000-50100").advice()
    assert "TURN" in addresses().advice()
    assert here() not in addresses(public_ip=f"203.0.113.7/{here()}").advice()


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "8f2b7e3c-1a2b-4c3d-9e8f-001122334455.local"])
def test_a_candidate_is_taken(host: str) -> None:
    candidate = parse_candidate(HOST.format(host))
    assert candidate is not None
    assert (candidate.host, candidate.port, candidate.type) == (host, 54321, "host")


@pytest.mark.parametrize("prefix", ["", "a="])
@pytest.mark.parametrize("kind", ["srflx", "relay", "prflx"])
def test_candidates_with_extensions(prefix: str, kind: str) -> None:
    text = f"{prefix}candidate:a+/9 1 UDP 1 192.0.2.7 1 typ {kind} raddr 10.0.0.1 rport 2 generation 0 ufrag abcd"
    candidate = parse_candidate(text)
    assert candidate is not None
    assert candidate.type == ("srflx" if kind == "prflx" else kind)


@pytest.mark.parametrize(
    "text",
    [
        "candidate:1 1 tcp 1 192.0.2.7 9 typ host tcptype active",
        "candidate:1 2 udp 1 192.0.2.7 9 typ host",
        "candidate:1 1 udp 1 192.0.2.7 0 typ host",
        *(
            HOST.format(host)
            for host in ("127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.251", "ff02::1", "255.255.255.255")
        ),
        HOST.format("169.254.169.254"),
        HOST.format("::ffff:10.0.0.1"),
        *(HOST.format(host) for host in ("example.org", "printer.local", "localhost", "xn--bcher-kva.example")),
    ],
)
def test_a_candidate_of_no_use_is_left_out(text: str) -> None:
    """TCP, RTCP's own port, addresses that are no machine's in particular, and host names."""
    assert parse_candidate(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "candidate:",
        "candidate:1 1 udp x 192.0.2.7 9 typ host",
        "candidate:1 1 udp 1 192.0.2.7 70000 typ host",
        "candidate:1 1 udp 4294967296 192.0.2.7 9 typ host",
        "candidate:1 1 udp 1 192.0.2.7 9",
        "candidate:1 1 udp 1 192.0.2.7 9 typ host raddr",
        HOST.format("192.0.2"),
        HOST.format("-example.org"),
        HOST.format("fe80::1%eth0;reboot"),
        HOST.format("x" * 300 + ".local"),
    ],
)
def test_what_is_no_candidate_is_refused(text: str) -> None:
    with pytest.raises(BadCandidate):
        parse_candidate(text)


@given(st.text(max_size=200))
def test_arbitrary_text_raises_nothing_else(text: str) -> None:
    for candidate in (text, f"candidate:{text}", HOST.format(text)):
        with contextlib.suppress(BadCandidate):
            parse_candidate(candidate)
