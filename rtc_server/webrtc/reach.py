"""Decides to which of a peer's candidate addresses the server sends checks of its own. Pure.

A candidate is an address of the peer's choice, and a check is sent there before a peer has answered from it: to one
who is no friend, a server is a way to knock at doors that are not open to him. What is left out costs no connection
that the peer can begin: its own checks show where it is, and are answered.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address

_NOWHERE: Final = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # What clouds tell their machines by: Azure's and Alibaba's; Amazon's, Google's and Oracle's are link-local.
        *("168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::/32", "fd20:ce::254/128"),
        *("::/96", "::1/128", "fe80::/10", "ff00::/8"),
        # IPv4 addresses in other clothes: mapped, NAT64, Teredo, 6to4.
        *("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"),
    )
)
_PRIVATE: Final = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "fc00::/7")
)
_NEAR: Final = (*(ip_network(text) for text in ("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10")), *_PRIVATE)


def is_nowhere(address: Address) -> bool:
    """Whether no peer that is worth a check is there: this machine, the cable, a cloud's inside, many at a time."""
    return any(address in network for network in _NOWHERE)


def is_private(address: Address) -> bool:
    """Whether an address means something within one network alone, of a house, a company, a provider."""
    return any(address in network for network in _PRIVATE)


def is_near(counted: str) -> bool:
    """Whether a client, by what it is counted by (:func:`rtc_server.access.addresses.counted_by`), is on this machine
    or in a private network, as this server then is. One without an address is not."""
    try:
        network = ip_network(counted)
    except ValueError:
        return False
    return any(network.version == near.version and network.overlaps(near) for near in _NEAR)


def may_be_checked(host: str, near: bool) -> bool:
    """Whether to send checks to an address, or look up a name, that a client names which is ``near`` or not.

    A private address is that of another where a client has come from far. A name (RFC 8828: ``….local``) is asked for
    by multicast in this server's own network.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return near
    return not is_nowhere(address) and (near or not is_private(address))
