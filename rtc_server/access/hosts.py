"""Decides which ``Host`` names this server answers to. Pure.

A page of a stranger is kept from other servers by its browser, which goes by names. So its owner lets the page's own
name lead to 127.0.0.1 (DNS rebinding): from then on the page's requests reach the server on its visitor's machine, are
of one origin with the page, and mostly do not even say which that is (``Origin``). What they cannot do is to name
another host than the page's. Hence a server that serves this machine's loopback address without keys answers to the
names that no name server decides about (``localhost``, loopback addresses), to that of ``--public-url``, and to those
of ``--allow-origins``. A server with ``--auth`` needs no such care, for the stranger's page has no key, and one that is
open to a network does not trust the address anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from rtc_server.errors import ConfigError

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_LENGTH: Final = 300
_MAX_PORT: Final = 65535
_NAME: Final = re.compile(r"[a-z0-9_.~-]+")
_URL: Final = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.~-]+)(:[0-9]+)?(/[\x21-\x7e]*)?")
_AUTHORITY: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]]+)(?::(?P<port>[0-9]*))?")


@dataclass(frozen=True, slots=True)
class Authority:
    """``host``: a name in lower case, without the dot of the root, or an address without brackets."""

    host: str
    port: int | None


def parse_authority(text: str) -> Authority | None:
    """The value of ``Host`` (RFC 9110, section 7.2: uri-host [ ":" port ]). None: it is none."""
    found = _AUTHORITY.fullmatch(text.lower()) if len(text) <= _MAX_LENGTH else None
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > _MAX_PORT:
        return None
    if found["host"].startswith("["):
        try:
            return Authority(str(IPv6Address(found["host"][1:-1])), port)
        except ValueError:
            return None
    host = found["host"].removesuffix(".")
    return Authority(host, port) if _NAME.fullmatch(host) else None


def needs_no_name_server(host: str) -> bool:
    """Whether ``host`` always is this machine. RFC 6761, section 6.3: names under ``localhost`` are loopback, and
    browsers do not ask for them."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


class Hosts:
    """The rule. ``names``: besides this machine's own. ``any_name``: there is no stranger to keep out."""

    def __init__(self, names: Iterable[str] = (), any_name: bool = False) -> None:
        self._names = frozenset(names)
        self._any = any_name

    def answers_to(self, host: str) -> bool:
        """``host``: as :class:`Authority` has it."""
        return self._any or host in self._names or needs_no_name_server(host)


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """``--public-url``: where browsers find this server, through a proxy perhaps. ``text`` ends with a slash."""

    text: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port


def parse_public_url(text: str) -> PublicUrl:
    """Raises ConfigError for what is no address of a page."""
    wrong = ConfigError(
        f"--public-url: {text!r} is not the address of a page.",
        hint="As https://voice.example.com, or https://example.com/voice/ behind a path of its own.",
    )
    if not _URL.fullmatch(text):
        raise wrong
    parts = urlsplit(text)
    if parts.scheme not in DEFAULT_PORTS or parts.query or parts.fragment:
        raise wrong
    authority = parse_authority(parts.netloc)
    if authority is None:
        raise wrong
    port = DEFAULT_PORTS[parts.scheme] if authority.port is None else authority.port
    url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
    return PublicUrl(url, parts.scheme, authority.host, port)
