"""What coturn is started with: each line explained, every network that is not the internet denied, the secret kept."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtc_server.config import RelaySettings, Settings
from rtc_server.errors import ConfigError
from rtc_server.system.hardware import routed_addresses
from rtc_server.turn import coturn

SECRET = "a-secret-of-the-tests"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Global by the registry that Python knows, and denied all the same: they lead to IPv4 addresses, to any, or to
# what a cloud has for its machines alone.
_ALSO_DENIED = [
    *("192.88.99.0/24", "192.0.0.0/24", "2001::/23", "2002::/16", "64:ff9b::/96", "64:ff9b:1::/48"),
    *("::ffff:0:0/96", "::ffff:0:0:0/96", "3fff::/20", "5f00::/16", "fec0::/10"),
    *("168.63.129.16/32", "161.26.0.0/16", "166.8.0.0/14"),
]


def rendered(settings: dict[str, Any] | None = None, **relay: Any) -> str:
    return coturn.render(Settings(**(settings or {})), RelaySettings(**relay), SECRET)


def lines_of(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.split("=")[0] == name]


def denied_ranges() -> list[tuple[Address, Address]]:
    found = []
    for text in lines_of(rendered(), "denied-peer-ip"):
        first, dash, last = text.partition("-")
        assert dash, f"{text}: coturn knows ranges only"
        found.append((ipaddress.ip_address(first), ipaddress.ip_address(last)))
    return found


RANGES = denied_ranges()


def is_denied(address: Address) -> bool:
    """By the two ways in which versions of coturn look into a range, which have to agree."""
    same = [(first, last) for first, last in RANGES if first.version == address.version]
    span = any(int(first) <= int(address) <= int(last) for first, last in same)
    # In 4.6, IPv6: each byte for itself (addr_less_eq in ns_turn_ioaddr.c). IPv4 it takes as a number.
    box = any(
        all(low <= byte <= high for low, byte, high in zip(first.packed, address.packed, last.packed, strict=True))
        for first, last in same
    )
    assert address.version == 4 or span == box, address
    return span


def test_ranges_have_a_beginning_and_an_end_of_one_kind() -> None:
    """:: as the lower end means "none" to coturn, which then denies all of IPv4."""
    for first, last in RANGES:
        assert first.version == last.version
        assert int(first) <= int(last)
        assert not (first.version == 6 and first.is_unspecified)


@given(st.ip_addresses())
@example(ipaddress.ip_address("::ffff:8.8.8.8"))
@example(ipaddress.ip_address("169.254.169.254"))
@example(ipaddress.ip_address("::10.0.1.0"))
@example(ipaddress.ip_address("::ffff:0:a00:100"))
@example(ipaddress.ip_address("1::"))
def test_what_is_not_the_internet_is_denied_and_nothing_else(address: Address) -> None:
    if address.version == 6 and address.is_unspecified:
        return  # refused by coturn itself
    special = any(address in network for network in map(ipaddress.ip_network, _ALSO_DENIED))
    outside = not address.is_global or address.is_multicast or address.is_reserved
    # The rest of IPv6 is not assigned yet, and no route leads there.
    nobodys = address.version == 6 and address not in ipaddress.ip_network("2000::/3")
    assert is_denied(address) == (special or outside or nobodys), address


@pytest.mark.parametrize(
    "network",
    [
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4", "100::/64", "2001:db8::/32", "fc00::/7", "fe80::/10", "ff00::/8"),
        *_ALSO_DENIED,
    ],
)
def test_each_network_that_leads_inside_is_denied_to_its_edges(network: str) -> None:
    parsed = ipaddress.ip_network(network)
    for address in (parsed[0], parsed[min(1, parsed.num_addresses - 1)], parsed[-1]):
        assert is_denied(address)


@pytest.mark.parametrize(
    "address",
    [
        *("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "169.254.169.254", "168.63.129.16"),
        *("::127.0.0.1", "::10.0.1.0", "::ffff:10.0.0.0", "::ffff:0:10.0.0.0", "64:ff9b::10.0.0.0", "2002:a00::"),
    ],
)
def test_the_metadata_of_clouds_and_ipv4_in_all_its_clothes_are_denied(address: str) -> None:
    assert is_denied(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "9.255.255.255", "168.63.129.15", "168.63.129.17", "172.32.0.1", "223.255.255.255", "2620:fe::fe"],
)
def test_the_internet_is_not(address: str) -> None:
    assert not is_denied(ipaddress.ip_address(address))


def test_every_line_of_the_template_is_explained() -> None:
    """Each group of settings stands right under a comment."""
    above = ""
    for line in coturn.template_file().read_text().splitlines():
        if line and not line.startswith("#"):
            assert above, f"{line}: what is it for?"
        above = line
    assert "${" not in "".join(line for line in rendered().splitlines() if not line.startswith("#"))


def test_without_a_certificate_there_is_no_tls() -> None:
    text = rendered()
    assert "\nno-tls\n" in text
    assert not lines_of(text, "cert")
    assert not lines_of(text, "tls-listening-port")


def test_with_a_certificate_there_is(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.touch()
    key.touch()
    text = rendered(turn_cert=str(certificate), turn_key=str(key), turn_tls_port=443)
    assert "\nno-tls\n" not in text
    assert lines_of(text, "cert") == [str(certificate)]
    assert lines_of(text, "pkey") == [str(key)]
    assert lines_of(text, "tls-listening-port") == ["443"]


def test_the_settings_arrive() -> None:
    text = rendered(
        {"public_ip": "198.51.100.7/10.0.0.7"},
        turn_listen=("10.0.0.7", "fd00::7"),
        turn_relay_ip="10.0.0.7",
        turn_relay_ports="50000-50009",
        turn_realm="example.org",
        turn_user_quota=7,
        turn_peers=("10.0.0.8", "10.1.0.0/24", "10.2.0.1-10.2.0.9"),
    )
    expected = {
        "listening-ip": ["10.0.0.7", "fd00::7"],
        "relay-ip": ["10.0.0.7"],
        "external-ip": ["198.51.100.7/10.0.0.7"],
        "min-port": ["50000"],
        "max-port": ["50009"],
        "total-quota": ["10"],
        "user-quota": ["7"],
        "realm": ["example.org"],
        "static-auth-secret": [SECRET],
        "allowed-peer-ip": ["10.0.0.8", "10.1.0.0-10.1.0.255", "10.2.0.1-10.2.0.9"],
    }
    assert {name: lines_of(text, name) for name in expected} == expected


def test_the_media_server_is_where_its_settings_say() -> None:
    """Behind NAT at both of its addresses; where it is bound to certain ones, there alone."""
    outer = "198.51.100.7"
    peers = lines_of(
        rendered({"public_ip": f"{outer}/10.0.0.7", "interfaces": ("10.0.0.7", "eth9")}), "allowed-peer-ip"
    )
    assert peers == [outer, "10.0.0.7"]
    own = routed_addresses()
    assert lines_of(rendered(), "allowed-peer-ip") == own
    for address in own:
        assert not lines_of(rendered({"public_ip": address}), "external-ip"), "no NAT where the address is its own"


@pytest.mark.parametrize(
    ("settings", "relay"),
    [
        ({}, {"turn_relay_ports": "50000"}),
        ({}, {"turn_relay_ports": "50009-50000"}),
        ({}, {"turn_relay_ports": "80-90"}),
        ({}, {"turn_relay_ports": "60000-70000"}),
        ({}, {"turn_listen": ("eth0",)}),
        ({}, {"turn_listen": ("10.0.0.1\nno-auth",)}),
        ({}, {"turn_relay_ip": "example.org"}),
        ({}, {"turn_peers": ("example.org",)}),
        ({}, {"turn_peers": ("10.0.0.1/8",)}),
        ({}, {"turn_cert": "/nowhere/cert.pem", "turn_key": "/nowhere/key.pem"}),
        ({}, {"turn_cert": "a b", "turn_key": "c"}),
        ({"public_ip": "example.org"}, {}),
        ({"public_ip": "198.51.100.7/eth0"}, {}),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], relay: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        rendered(settings, **relay)


@pytest.mark.parametrize(
    "relay", [{"turn_cert": "a"}, {"turn_key": "a"}, {"turn_realm": ""}, {"turn_realm": "a b"}, {"turn_port": 0}]
)
def test_and_some_at_once(relay: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RelaySettings(**relay)


@pytest.mark.parametrize(
    "secret", ["", "short", "with a space in it", 'with"quotes', "a#comment-of-coturn", "line\nbreak1"]
)
def test_a_secret_that_coturn_would_read_as_something_else_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError) as refused:
        coturn.render(Settings(), RelaySettings(), secret)
    assert "openssl rand" in (refused.value.hint or "")
    assert secret not in str(refused.value) or not secret


def test_what_is_shown_has_no_secret_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text = coturn.render_hidden(Settings(turn_secret=SECRET), RelaySettings())
    assert SECRET not in text
    assert len(text.splitlines()) == len(rendered().splitlines())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("before", [None, 0o644])
def test_what_is_written_is_its_owners_alone(tmp_path: Path, before: int | None) -> None:
    file = tmp_path / "a" / "turnserver.conf"
    if before is not None:
        file.parent.mkdir()
        file.write_text("something longer that was here before")
        file.chmod(before)
    mask = os.umask(0)
    try:
        coturn.write_private(file, SECRET)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == SECRET


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        coturn.write_private(tmp_path / "link", SECRET)
    assert not (tmp_path / "elsewhere").exists()


def test_a_secret_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    first, option = coturn.secret_or_new(Settings())
    assert option == ["--turn-secret-file", str(tmp_path / "turn" / ".secret")]
    assert coturn.secret_or_new(Settings()) == (first, option)
    assert len(first) == 64
    assert stat.S_IMODE((tmp_path / "turn" / ".secret").stat().st_mode) == 0o600


def test_a_secret_that_is_set_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text(SECRET)
    assert coturn.secret_or_new(Settings(turn_secret_file="mine")) == (SECRET, ["--turn-secret-file", "mine"])
    assert coturn.secret_or_new(Settings(turn_secret=SECRET)) == (SECRET, [])
    assert not (tmp_path / "turn").exists()


def test_where_clients_find_it() -> None:
    def urls(public_ip: str = "", **relay: Any) -> list[str]:
        return coturn.urls(Settings(public_ip=public_ip), RelaySettings(**relay))

    assert urls("198.51.100.7/10.0.0.7") == ["turn:198.51.100.7:3478", "turn:198.51.100.7:3478?transport=tcp"]
    assert urls(turn_listen=("fd00::7",), turn_port=443)[0] == "turn:[fd00::7]:443"
    assert urls(turn_cert="a", turn_key="b")[2].startswith("turns:")


def test_without_coturn_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError) as refused:
        coturn.run("")
    assert "apt-get install coturn" in (refused.value.hint or "")
