"""Opens the listening sockets of ``--host`` and ``--port``, and explains failures.

One port for all addresses that the host means: both families of ``::``, all that a name stands for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final

from rtc_server.access.addresses import is_address
from rtc_server.errors import ConfigError
from rtc_server.system import hardware

logger = logging.getLogger(__name__)

ALL_IPV4: Final = "0.0.0.0"  # noqa: S104 - what the host may be, not what it is
ALL: Final = ("::", ALL_IPV4)
BACKLOG: Final = 512
"""Connections that wait to be taken."""
_TRIES: Final = 10
"""For a port that is free for all addresses at once, where any will do."""
_SHOWN: Final = 6
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_PRIVILEGED: Final = 1024

_Place = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family and its socket address, of port 0."""


async def resolve(host: str) -> list[_Place]:
    """Resolve ``host``: one address, the addresses of a name, or for ``::`` both families. Raises ConfigError, with
    a hint, for what is neither."""
    _check_form(host)
    loop = asyncio.get_running_loop()
    names = ALL if host == ALL[0] else (host,)
    try:
        found = [await loop.getaddrinfo(name, 0, type=socket.SOCK_STREAM) for name in names]
    except (socket.gaierror, UnicodeError) as error:
        later = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
        raise ConfigError(
            f"--host {host}: {'its address cannot be looked up now' if later else 'there is no such name'}.",
            hint=_what_there_is(),
        ) from None
    return list(dict.fromkeys((family, place) for each in found for family, _, _, _, place in each))


async def check(host: str) -> None:
    """Raise ConfigError, with a hint, for a host that could be listened on at no port."""
    for bound in await listen(host, 0):
        bound.close()


async def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, all on one port (any that is free, of port 0). Of several addresses those that
    this machine does not have are left out. Raises ConfigError, with a hint."""
    places = await resolve(host)
    try:
        for _ in range(_TRIES - 1):
            try:
                return _bind_all(places, port)
            except OSError as error:
                if port or error.errno != errno.EADDRINUSE:
                    raise
        return _bind_all(places, port)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {error.strerror}.", hint=_hint(error, port)
        ) from error


def _bind_all(places: Sequence[_Place], port: int) -> list[socket.socket]:
    """Raises OSError, and leaves no socket open then."""
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, place in places:
            try:
                bound.append(_bind(family, place, port))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
                continue
            port = bound[0].getsockname()[1]
        if not bound:
            assert missing is not None, "a host means at least one address"
            raise missing
    except OSError:
        for each in bound:
            each.close()
        raise
    if missing is not None:
        logger.warning("not all addresses can be listened on: %s", missing.strerror)
    return bound


def _bind(family: socket.AddressFamily, place: tuple[Any, ...], port: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has a socket of its own: here its addresses would look like ::ffff:192.0.2.7.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((place[0], port, *place[2:]))
        bound.listen(BACKLOG)  # which of two servers that start at once has the port shows here
    except OSError:
        bound.close()
        raise
    return bound


def _check_form(host: str) -> None:
    """Raise ConfigError for what is written like something else."""
    if is_address(host.partition("%")[0]):
        return
    bare = host.partition("://")[2] or host
    name, colon, port = bare.strip("/").rpartition(":")
    if "," in host:
        hint = "It takes one address; :: and 0.0.0.0 are all of this machine."
    elif "*" in host:
        hint = "All addresses of this machine are 0.0.0.0, or :: with IPv6."
    elif colon and port.isdigit():
        hint = f"As --host {name.strip('[]')} --port {port}."
    elif bare != host or "[" in host:
        hint = f"As --host {bare.strip('[]/')}."
    elif "/" in host:
        hint = "It takes an address, not a network."
    else:
        return
    raise ConfigError(f"--host {host} is neither an address nor a name.", hint=hint)


def _hint(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "Another server may be running there; choose a port with --port."
        case errno.EACCES if 0 < port < _PRIVILEGED:
            return "Ports below 1024 want a privilege: AmbientCapabilities=CAP_NET_BIND_SERVICE in a unit of systemd."
        case errno.EAFNOSUPPORT:
            return "This machine has no IPv6: --host 0.0.0.0."
        case errno.EINVAL:
            return "A link-local address goes with its interface: fe80::1%eth0."
    return f"It is none of this machine's addresses. {_what_there_is()}"


def _what_there_is() -> str:
    own = [text for text in hardware.addresses() if not ip_address(text).is_link_local]
    return (
        f"127.0.0.1 is for this machine alone, 0.0.0.0 is all of its addresses (with IPv6: ::), "
        f"which are {', '.join(own[:_SHOWN])}. Behind NAT, --public-ip names the outer one."
    )
