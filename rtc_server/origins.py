"""Which web pages may use this server, by the ``Origin`` that their browser says. Pure.

A browser lets any page send requests anywhere, and has the server say whether the page may. So a request that names an
origin is served if that origin is ours, or allowed by ``--allow-origins``.

Ours is the one whose host and port the request itself is addressed to. But a page of a stranger can be made to look
like that: it loads from ``evil.example``, whose owner then points this name at 127.0.0.1 (DNS rebinding). From then on
the page's origin and the ``Host`` of its requests are the same name, and the server they reach is one that trusts
whoever reaches it. Hence, on a server that serves this machine's loopback address to anybody, such an origin counts as
ours only if the host is an IP address or ``localhost``, which nobody's name server decides about. Behind a reverse
proxy on the same machine, such a server has its public name in ``--allow-origins``. A server with ``--auth`` needs no
such care, for the stranger's page has no key, and one that is open to a network does not trust the address anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from rtc_server.errors import ConfigError

ANY: Final = "*"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_LENGTH: Final = 300


class Origins:
    """The rule. ``names_are_ours``: False on a loopback server without ``--auth``, see above."""

    def __init__(self, allowed: Sequence[str] = (), names_are_ours: bool = True) -> None:
        """Raises ConfigError for what is no origin."""
        self._any = ANY in allowed
        self._allowed = {_checked(origin) for origin in allowed if origin != ANY}
        self._names_are_ours = names_are_ours

    def is_ours(self, origin: str, host: str) -> bool:
        """``host``: the request's ``Host``. The scheme is not compared: behind a proxy we do not know our own."""
        parsed = _parse(origin)
        if parsed is None:
            return False
        scheme, name, port = parsed
        if _split_host(host, _DEFAULT_PORTS[scheme]) != (name, port):
            return False
        return self._names_are_ours or _needs_no_name_server(name)

    def allows(self, origin: str) -> bool:
        """Whether another's page may come in. ``null``, of sandboxed frames and local files, is nobody in particular,
        and comes in where everybody does."""
        return self._any or _parse(origin) in self._allowed


def _checked(origin: str) -> tuple[str, str, int]:
    parsed = _parse(origin)
    if parsed is None or ANY in parsed[1]:
        raise ConfigError(
            f"--allow-origins: {origin!r} is no web origin.",
            hint="As https://voice.example.com, without a path; * is all.",
        )
    return parsed


def _parse(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin (RFC 6454, section 6.2); None if it is none of the web."""
    if len(origin) > _MAX_LENGTH:
        return None
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc:
        return None
    if parts.path or parts.query or parts.fragment or origin.endswith(("?", "#", ":")):
        return None
    return scheme, host, _DEFAULT_PORTS[scheme] if port is None else port


def _split_host(host: str, default_port: int) -> tuple[str, int] | None:
    parsed = _parse(f"http://{host}")
    if parsed is None:
        return None
    has_port = host.rpartition("]")[2].rpartition(":")[1]
    return parsed[1], parsed[2] if has_port else default_port


def _needs_no_name_server(host: str) -> bool:
    """RFC 6761, section 6.3: names under ``localhost`` are loopback, and browsers do not ask for them."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
