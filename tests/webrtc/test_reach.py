"""Which addresses that a client names are checked: those at which it may be, and not those of this server's inside."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from rtc_server.webrtc.reach import is_near, is_nowhere, may_be_checked

PUBLIC = ["203.0.113.7", "8.8.8.8", "2001:db8::7", "2606:4700::1111"]
PRIVATE = ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.178.20", "100.64.0.1", "fd12:3456::1", "198.18.0.1"]
NOWHERE = [
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "224.0.0.251", "255.255.255.255", "240.0.0.1"),
    *("169.254.169.254", "169.254.1.1", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254"),
    *("::", "::1", "fe80::1", "ff02::fb", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "2002:a00:1::"),
]


@pytest.mark.parametrize("near", [True, False])
def test_public_addresses_are_checked_for_all(near: bool) -> None:
    assert all(may_be_checked(host, near) for host in PUBLIC)


def test_private_addresses_are_for_those_who_come_from_one() -> None:
    assert all(may_be_checked(host, near=True) for host in PRIVATE)
    assert not any(may_be_checked(host, near=False) for host in PRIVATE)


def test_names_are_looked_up_for_neighbours() -> None:
    name = "8f2b7e3c-1a2b-4c3d-9e8f-001122334455.local"
    assert may_be_checked(name, near=True)
    assert not may_be_checked(name, near=False)


@pytest.mark.parametrize("host", NOWHERE)
def test_some_addresses_are_checked_for_no_one(host: str) -> None:
    assert is_nowhere(ip_address(host))
    assert not may_be_checked(host, near=True)


@pytest.mark.parametrize(
    ("counted", "near"),
    [
        ("127.0.0.1", True),
        ("192.168.1.5", True),
        ("fd12:3456::/64", True),
        ("fe80::/64", True),
        ("::/64", True),
        ("203.0.113.9", False),
        ("2001:db8::/64", False),
        ("", False),
        ("nobody", False),
    ],
)
def test_who_is_near(counted: str, near: bool) -> None:
    assert is_near(counted) is near
