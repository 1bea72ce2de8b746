"""Finds the client address that a request is counted by, behind trusted proxies too. Pure; knows nothing of HTTP but
one header's form."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from rtc_server.errors import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SUBSCRIBER_BITS: Final = 64
"""What one customer has at least (RFC 6177): counted by single addresses, one would have 2**64 of everything."""
_MAX_HOPS: Final = 32


def parse_address(text: str) -> Address | None:
    """An address as sockets and proxies write it: with a port, brackets or a zone perhaps. None: it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_address(text: str) -> bool:
    """Whether ``text`` is an IP address, and nothing else."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def counted_by(address: Address | None) -> str:
    """Key that limits are counted by: an IPv4 address, an IPv6 network of 64 bits, or nothing where there is no
    address."""
    if address is None:
        return ""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), _SUBSCRIBER_BITS), strict=False))


def is_loopback(host: str) -> bool:
    """Whether a server that listens on ``host`` is reached from its own machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Proxies:
    """The reverse proxies whose word counts: ``--trusted-proxies``."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """Raises ConfigError for what is neither an address nor a network."""
        self._networks = [_network(text) for text in networks]

    def trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: str, forwarded_for: Sequence[str]) -> Address | None:
        """The client behind a request: the connection's ``peer``, or what trusted proxies say of it.

        Each proxy appends whom it heard from to ``X-Forwarded-For``, so what a client makes up stands to the left of
        what is true. From the right, the first address that is no trusted proxy is the client. Where the list does
        not go on, or not with an address, the one that said so is the client.
        """
        client = parse_address(peer)
        hops = ",".join(forwarded_for).rsplit(",", _MAX_HOPS)[-_MAX_HOPS:] if self.trusts(client) else []
        for hop in reversed(hops):
            said = parse_address(hop)
            if said is None:
                break
            client = said
            if not self.trusts(client):
                break
        return client


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ConfigError(
            f"--trusted-proxies: {text!r} is neither an address nor a network.", hint="As 10.0.0.7 or 10.0.0.0/8."
        ) from None
