"""Decides which web pages may use this server, by the ``Origin`` of a request. Pure.

A browser lets any page send requests anywhere, and has the server say whether the page may. So a request that names an
origin is served if that origin is ours, or allowed by ``--allow-origins``.

Ours is the one whose host and port the request itself is addressed to, if that is a host that this server answers to
(``hosts.py`` says why it may not be enough that the two are the same); and that of ``--public-url``, which a proxy may
keep to itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from rtc_server.access.hosts import DEFAULT_PORTS, Hosts, PublicUrl, parse_authority
from rtc_server.errors import ConfigError

ANY: Final = "*"
NULL: Final = "null"
_MAX_LENGTH: Final = 300
_FORM: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>[a-z0-9_.~:\[\]-]*)")

Origin = tuple[str, str, int | None]
"""Scheme, host and port. Those of applications (``capacitor://localhost``) mostly have no port."""


class Origins:
    """The rule. ``hosts``: the names that are ours; ``public``: where our own page is found."""

    def __init__(
        self, allowed: Sequence[str] = (), hosts: Hosts | None = None, public: PublicUrl | None = None
    ) -> None:
        """Raises ConfigError for what is no origin."""
        self._any = ANY in allowed
        self._allowed = {_checked(origin) for origin in allowed if origin != ANY}
        self._hosts = hosts or Hosts(any_name=True)
        self._public = None if public is None else public.origin

    def is_ours(self, origin: str, host: str) -> bool:
        """``host``: the request's ``Host``. The scheme is not compared: behind a proxy we do not know our own."""
        parsed, authority = _parse(origin), parse_authority(host)
        if parsed is None or parsed[0] not in DEFAULT_PORTS:
            return False
        if parsed == self._public:
            return True
        scheme, name, port = parsed
        if authority is None or (authority.host, authority.port or DEFAULT_PORTS[scheme]) != (name, port):
            return False
        return self._hosts.answers_to(name)

    def allows(self, origin: str) -> bool:
        """Whether another's page may come in. ``null``, of sandboxed frames and local files, is no origin in
        particular, and comes in where all do."""
        return self._any or _parse(origin) in self._allowed


def hosts_of(allowed: Sequence[str]) -> Iterator[str]:
    """The hosts of those origins of ``--allow-origins`` that a name server knows. Raises ConfigError."""
    for origin in allowed:
        if origin != ANY and (parsed := _checked(origin))[0] in DEFAULT_PORTS:
            yield parsed[1]


def _checked(origin: str) -> Origin:
    if origin.strip().lower() == NULL:
        raise ConfigError(
            "--allow-origins: null is what every sandboxed frame and every local file says, of any origin.",
            hint="Serve the page from an origin of its own, as http://localhost:3000, and allow that; * is all.",
        )
    parsed = _parse(origin)
    if parsed is None:
        raise ConfigError(
            f"--allow-origins: {origin!r} is no origin.",
            hint="As https://voice.example.com or capacitor://localhost, without a path; * is all.",
        )
    return parsed


def _parse(origin: str) -> Origin | None:
    """An origin of the web (RFC 6454, section 6.2), or of an application: any scheme and host. None: it is neither."""
    found = _FORM.fullmatch(origin.lower()) if len(origin) <= _MAX_LENGTH else None
    if found is None:
        return None
    scheme, rest = found["scheme"], found["rest"]
    if scheme == "file":
        return None if rest else (scheme, "", None)
    authority = None if rest.endswith(":") else parse_authority(rest)
    if authority is None:
        # Electron and others use hosts that no name server would have: app://-, app://.
        return (scheme, rest, None) if rest in ("-", ".") and scheme not in DEFAULT_PORTS else None
    return scheme, authority.host, DEFAULT_PORTS.get(scheme) if authority.port is None else authority.port
