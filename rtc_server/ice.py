"""Where media is reached: addresses, ports and candidates, and whether the peer still answers.

All that touches aioice's private parts. What is assumed of them is said in ``tests/test_ice.py``. Knows
nothing of sessions: that a silent path is dead is for others to decide.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import ifaddr
from aioice import Candidate, Connection, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol

from rtc_server.config import Settings
from rtc_server.errors import BadCandidate, ConfigError, NoPort

logger = logging.getLogger(__name__)

MAX_CANDIDATES: Final = 64
"""A connection's remote candidates. Browsers on machines with many interfaces offer some twenty; each costs checks."""
_RECEIVE_BUFFER_BYTES: Final = 512 * 1024
_PROBE_INTERVAL_S: Final = 1.0
_CONSENT_INTERVAL_S: Final = 5.0
_CONSENT_LIFETIME_S: Final = 30.0
"""RFC 7675, section 5.1: consent is asked for every 5 s and expires 30 s after it was last given."""
# RFC 8839, section 5.1.
_CANDIDATE: Final = re.compile(
    r"(?:a=)?candidate:(?P<foundation>[A-Za-z0-9+/]{1,32}) (?P<component>\d{1,3}) (?P<transport>[A-Za-z]{3,8}) "
    r"(?P<priority>\d{1,10}) (?P<host>[A-Za-z0-9.:%-]{1,255}) (?P<port>\d{1,5}) typ (?P<type>[a-z]{4,8})"
    r"(?P<rest>(?: [!-~]{1,256} [!-~]{1,256})*) ?"
)
_MDNS: Final = re.compile(r"[A-Za-z0-9-]{1,63}\.local")

_BROADCAST: Final = ipaddress.ip_address("255.255.255.255")

PortRange = range


@dataclass(frozen=True, slots=True)
class MediaAddresses:
    """Where this server's media is: from settings, checked. ``ports``: None is any. ``public``: the address that
    answers give in place of a private one, by the private one."""

    ports: PortRange | None = None
    interfaces: tuple[str, ...] = ()
    public: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> MediaAddresses:
        """Raises ConfigError."""
        addresses = cls(_parse_ports(settings.udp_ports), settings.interfaces)
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

    def shown(self, host: str) -> str:
        """What a candidate on ``host`` calls itself."""
        return dict(self.public).get(host, host)

    def advice(self) -> str:
        """What to look at when nobody gets through. For the peer and the log: it names no address."""
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


def _parse_ports(text: str) -> PortRange | None:
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
    """A remote candidate (RFC 8839, section 5.1), or None for one that is of no use here: of TCP, or of an address
    that is nobody's in particular. Raises BadCandidate for what is none."""
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
            raise BadCandidate from None
        if (
            "%" in match["host"]
            or address.is_multicast
            or address.is_unspecified
            or address.is_loopback
            or address == _BROADCAST
        ):
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


class IceConnection(Connection):
    """aioice's connection, on the addresses and ports of this server, that asks a silent peer whether it is there."""

    def __init__(self, addresses: MediaAddresses, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._addresses = addresses
        self._data_packets = 0
        self.answers = 0
        """How often the peer has answered a probe: signed by it, so proof that it is there."""

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109 - aioice's
    ) -> list[Candidate]:
        """Host candidates alone. Raises NoPort when a range is set and taken."""
        candidates = []
        for host in self._addresses.hosts():
            protocol = await self._bind(host)
            if protocol is None:
                continue
            self._protocols.append(protocol)
            own = _host_candidate(component, host, protocol)
            protocol.local_candidate = own
            shown = self._addresses.shown(host)
            candidates.append(own if shown == host else _host_candidate(component, shown, protocol))
        if not candidates:
            raise NoPort
        return candidates

    async def _bind(self, host: str) -> StunProtocol | None:
        """A socket on a free port; None if there is none on this address."""
        ports = self._addresses.ports
        first = 0 if ports is None else random.randrange(len(ports))  # noqa: S311 - spreads them, no more
        tries = [0] if ports is None else [*ports[first:], *ports[:first]]
        loop = asyncio.get_running_loop()
        for port in tries:
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: StunProtocol(self), local_addr=(host, port)
                )
            except OSError:
                continue
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            return protocol
        logger.warning("no free UDP port on one of this machine's addresses")
        return None

    def data_received(self, data: bytes, component: int) -> None:
        self._data_packets += 1
        super().data_received(data, component)

    async def query_consent(self) -> None:
        """Ask for consent to send (RFC 7675), and more often while nothing comes, so that a peer that has gone is
        noticed within seconds and one that has nothing to say is not taken for gone."""
        loop = asyncio.get_running_loop()
        asked_at = granted_at = loop.time()
        while True:
            before = self._data_packets
            await asyncio.sleep(_PROBE_INTERVAL_S * (0.8 + 0.4 * random.random()))  # noqa: S311 - RFC 7675
            if self._data_packets != before and loop.time() - asked_at < _CONSENT_INTERVAL_S:
                continue
            asked_at = loop.time()
            pairs = list(self._nominated.values())
            if any(await asyncio.gather(*(self._ask(pair) for pair in pairs))):
                granted_at = loop.time()
                self.answers += 1
            elif loop.time() - granted_at > _CONSENT_LIFETIME_S:
                self._query_consent_task = None
                await self.close()
                return

    async def _ask(self, pair: CandidatePair) -> bool:
        assert self.remote_password is not None, "it has connected"
        request = self.build_request(pair, nominate=False)
        key = self.remote_password.encode()
        try:
            await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=1)
        except stun.TransactionError:
            return False
        return True


def _host_candidate(component: int, host: str, protocol: StunProtocol) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("host", "udp", host),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=host,
        port=protocol.transport.get_extra_info("sockname")[1],
        type="host",
    )
