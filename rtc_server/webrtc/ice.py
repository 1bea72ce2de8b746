"""The addresses and ports of this server's media, and the candidates that a peer names."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import ifaddr
from aioice import Candidate

from rtc_server.config import Settings
from rtc_server.errors import BadCandidate, ConfigError
from rtc_server.webrtc.reach import is_near, is_nowhere, may_be_checked

MAX_CANDIDATES: Final = 20
"""A connection's remote candidates that are checked. Browsers on machines with many interfaces offer as many; one that
is left out is found by its own checks."""
# RFC 8839, section 5.1.
_CANDIDATE: Final = re.compile(
    r"(?:a=)?candidate:(?P<foundation>[!-~]{1,64}) (?P<component>\d{1,3}) (?P<transport>[A-Za-z]{3,8}) "
    r"(?P<priority>\d{1,10}) (?P<host>[A-Za-z0-9.:%-]{1,255}) (?P<port>\d{1,5}) typ (?P<type>[a-z]{4,8})"
    r"(?P<rest>(?: [!-~]{1,256} [!-~]{1,256})*) ?"
)
_LABEL: Final = r"(?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
# Which no number at its end makes an address (RFC 1123, section 2.1).
_NAME: Final = re.compile(rf"(?:[0-9A-Za-z]{_LABEL}\.)*[A-Za-z]{_LABEL}")
# A name that stands for an address is a random UUID (draft-ietf-mmusic-mdns-ice-candidates, section 3.1.1). No machine
# is called so: others cannot be looked up.
_MDNS: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\.local")

PortRange = range


@dataclass(frozen=True, slots=True)
class MediaAddresses:
    """Where this server's media is: from settings, checked. ``ports``: None is any. ``public``: the address that
    answers give in place of a private one, by the private one. ``near``: whether the peer is in a private network, so
    that the private addresses that it names are worth a check."""

    ports: PortRange | None = None
    interfaces: tuple[str, ...] = ()
    public: tuple[tuple[str, str], ...] = ()
    near: bool = True

    @classmethod
    def from_settings(cls, settings: Settings) -> MediaAddresses:
        """Raises ConfigError."""
        addresses = cls(parse_ports(settings.udp_ports), settings.interfaces)
        if not addresses.hosts():
            found = ", ".join(sorted({adapter.nice_name for adapter in ifaddr.get_adapters()}))
            raise ConfigError("--interfaces names none of this machine's.", hint=f"It has: {found}.")
        return cls(addresses.ports, settings.interfaces, _parse_public(settings.public_ip, addresses.hosts()))

    def hosts(self) -> list[str]:
        """The addresses of this machine to gather on; loopback when it has no other or is asked for by name."""
        chosen = [
            address
            for adapter, address in _machine_addresses()
            if not self.interfaces or adapter in self.interfaces or address in self.interfaces
        ]
        if self.interfaces:
            return chosen
        outside = [address for address in chosen if not ipaddress.ip_address(address).is_loopback]
        return outside or chosen

    def towards(self, counted: str) -> MediaAddresses:
        """The same for a client that is counted by ``counted`` (:func:`rtc_server.access.addresses.counted_by`)."""
        return dataclasses.replace(self, near=is_near(counted))

    def may_check(self, host: str) -> bool:
        """Whether to send checks to an address that the peer names, or look up a name."""
        return may_be_checked(host, self.near)

    def shown(self, host: str) -> str:
        """The address that a candidate on ``host`` names."""
        return dict(self.public).get(host, host)

    def advice(self) -> str:
        """Advice for when no client gets through. For the peer and the log: it names no address."""
        ports = "its UDP ports" if self.ports is None else f"UDP {self.ports.start}-{self.ports.stop - 1}"
        public = "" if self.public else " Behind NAT it needs --public-ip."
        return f"No candidate pair worked: is {ports} open, or a TURN server set?{public}"


def _machine_addresses() -> Iterator[tuple[str, str]]:
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                yield adapter.nice_name, ip.ip
            elif ip.ip[2] == 0:  # with a scope it is link-local, and means nothing without its interface
                yield adapter.nice_name, ip.ip[0]


def parse_ports(text: str) -> PortRange | None:
    """The ports of ``--udp-ports``; None for any. Raises ConfigError."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1024 <= low <= high <= 65535:  # noqa: PLR2004 - what an ordinary user may bind
        raise ConfigError(f"--udp-ports {text!r} is not a range such as 50000-50100, within 1024-65535.")
    return range(low, high + 1)


def _parse_public(text: str, hosts: list[str]) -> tuple[tuple[str, str], ...]:
    if not text:
        return ()
    public, _, private = text.partition("/")
    try:
        version = ipaddress.ip_address(public).version
        private = str(ipaddress.ip_address(private)) if private else _route_out(version)
    except ValueError:
        raise ConfigError(f"--public-ip {text!r} is not an address, nor PUBLIC/PRIVATE.") from None
    if private not in hosts:
        hint = f"It gathers on: {', '.join(hosts)}." if private else "Say which: PUBLIC/PRIVATE."
        raise ConfigError(f"--public-ip: {private or 'no private address'} is not one of this machine's.", hint=hint)
    return ((private, str(ipaddress.ip_address(public))),)


def _route_out(version: int) -> str:
    """The address from which packets to the internet leave; none is sent. Empty without such a route."""
    family, anywhere = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")  # noqa: PLR2004
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((anywhere, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def parse_candidate(text: str) -> Candidate | None:
    """A remote candidate (RFC 8839, section 5.1), or None for one that is of no use here: of TCP, of an address that is
    no machine's in particular, or of a host name, which is looked up for no peer. Raises BadCandidate for what is
    none."""
    match = _CANDIDATE.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65535 or int(match["priority"]) > 2**32 - 1:  # noqa: PLR2004
        raise BadCandidate
    if match["transport"].lower() != "udp" or match["type"] not in ("host", "srflx", "prflx", "relay"):
        return None
    if int(match["component"]) != 1 or int(match["port"]) == 0:
        return None
    if not _MDNS.fullmatch(match["host"]):
        try:
            address = ipaddress.ip_address(match["host"])
        except ValueError:
            if _NAME.fullmatch(match["host"]):
                return None
            raise BadCandidate from None
        if "%" in match["host"] or is_nowhere(address):
            return None
    return Candidate(
        foundation=match["foundation"],
        component=1,
        transport="udp",
        priority=int(match["priority"]),
        host=match["host"],
        port=int(match["port"]),
        # One that the peer has learnt from us (prflx) is as good as one that it knew before.
        type="srflx" if match["type"] == "prflx" else match["type"],
    )
