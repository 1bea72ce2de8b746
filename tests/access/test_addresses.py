"""Which address a request is counted by, whatever its sender and the proxies on its way say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_server.access.addresses import Proxies, counted_by, is_loopback, parse_address
from rtc_server.errors import ConfigError

PROXIES = Proxies(["10.0.0.0/8", "2001:db8:5::/48", "127.0.0.1"])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("192.0.2.7:5000", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ('"[2001:db8::7]:5000"', "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
    ],
)
def test_addresses_as_they_are_written(text: str, address: str) -> None:
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize(
    "text", ["", "unknown", "_hidden", "192.0.2", "192.0.2.07", "192.0.2.7.8", "[", "::1::", "localhost"]
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


@given(st.text(max_size=60))
def test_any_text_is_one_or_none(text: str) -> None:
    counted_by(parse_address(text))


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("nobody", ""),
    ],
)
def test_what_limits_are_counted_by(address: str, counted: str) -> None:
    """Of IPv6, the network that one customer has: or one would have 2**64 of each limit."""
    assert counted_by(parse_address(address)) == counted


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        # Who is no proxy may say what it wants.
        ("192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.1"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("127.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("::ffff:10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("2001:db8:5::1", ["2001:db8:9::1"], "2001:db8:9::1"),
        # What a client made up stands to the left of what its proxy has seen.
        ("10.0.0.1", ["203.0.113.5, 198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["10.0.0.9, 198.51.100.9"], "198.51.100.9"),
        # A chain of proxies.
        ("10.0.0.1", ["203.0.113.5, 198.51.100.9, 10.0.0.2"], "198.51.100.9"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.9:4711,10.0.0.2:80"], "198.51.100.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # Rubbish is as good as nothing, and hides nothing.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["unknown, 198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["198.51.100.9, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [",".join(["203.0.113.5"] + ["10.0.0.2"] * 5000)], "10.0.0.2"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_proxy(peer: str, forwarded: list[str], client: str) -> None:
    assert PROXIES.client(peer, forwarded) == ip_address(client)


@given(st.lists(st.ip_addresses().map(str) | st.text(max_size=20), max_size=5))
def test_whatever_a_client_makes_up_it_stays_itself(made_up: list[str]) -> None:
    """What it sends is what its proxy then adds its address to."""
    assert PROXIES.client("10.0.0.1", [*made_up, "198.51.100.9"]) == ip_address("198.51.100.9")
    assert PROXIES.client("10.0.0.1", [", ".join([*made_up, "198.51.100.9"])]) == ip_address("198.51.100.9")


def test_without_proxies_nobody_is_believed() -> None:
    assert Proxies().client("127.0.0.1", ["198.51.100.9"]) == ip_address("127.0.0.1")
    assert Proxies().client("", ["198.51.100.9"]) is None


@pytest.mark.parametrize("text", ["", "proxy", "10.0.0.0/33", "10.0.0.1/8", "10.0.0"])
def test_a_proxy_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--trusted-proxies") as refused:
        Proxies([text])
    assert refused.value.hint


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.7", "example.com", "localhost.example.com", "127.1"])
def test_what_others_may_reach(host: str) -> None:
    assert not is_loopback(host)
