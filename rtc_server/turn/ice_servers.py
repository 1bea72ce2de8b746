"""Makes the ICE servers that clients are given: STUN and TURN URLs, and TURN credentials that expire.

Pure: time is an argument, in Unix seconds. Knows nothing of HTTP, nor of who a user is, nor how the TURN server runs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rtc_server.access.addresses import counted_by, parse_address
from rtc_server.config import Settings
from rtc_server.errors import ConfigError
from rtc_server.usage import invocation

IceServer = dict[str, Any]
"""An ``RTCIceServer`` as JSON: ``urls``, and with TURN ``username`` and ``credential``."""

_URI: Final = re.compile(
    r"(?P<scheme>stuns?|turns?):(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?)"
    r"(?::(?P<port>\d{1,5}))?(?:\?transport=(?P<transport>udp|tcp))?",
    re.IGNORECASE,
)
_DEFAULT_PORTS: Final = {"stun": 3478, "stuns": 5349, "turn": 3478, "turns": 5349}
_USER_CHARACTERS: Final = 20


@dataclass(frozen=True, slots=True)
class ServerUri:
    """A parsed URI of RFC 7064 (stun) or RFC 7065 (turn). ``host`` has no brackets; ``transport`` is what the URI
    says or, where it says nothing, what browsers take."""

    text: str
    scheme: str
    host: str
    port: int
    transport: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one user shows the TURN server, until ``expires_at`` (Unix seconds)."""

    username: str
    password: str
    expires_at: int


def parse_uri(text: str) -> ServerUri:
    """Raises ConfigError for what is no such URI, and for what no browser takes."""
    found = _URI.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is not the URL of a STUN or TURN server.", hint=_hint(text))
    scheme = found["scheme"].lower()
    host = found["host"].removeprefix("[").removesuffix("]")
    port = _DEFAULT_PORTS[scheme] if found["port"] is None else int(found["port"])
    if found["host"].startswith("[") and not _is_ipv6(host):
        raise ConfigError(f"{text!r}: {host} is not an IPv6 address.")
    if not 0 < port < 65536:  # noqa: PLR2004 - what 16 bits hold
        raise ConfigError(f"{text!r}: there is no port {port}.")
    if found["transport"] is not None and scheme in ("stun", "stuns"):
        raise ConfigError(f"{text!r}: a STUN URL has no transport (RFC 7064).", hint="Leave ?transport= out.")
    secure = scheme in ("stuns", "turns")
    transport = (found["transport"] or ("tcp" if secure else "udp")).lower()
    if secure and transport == "udp":
        raise ConfigError(
            f"{text!r} is TURN over DTLS, which browsers do not speak.", hint="turns: goes with ?transport=tcp."
        )
    return ServerUri(text, scheme, host, port, transport)


def make_credentials(secret: str, user: str, expires_at: int) -> Credentials:
    """By the TURN REST scheme (draft-uberti-behave-turn-rest-00, section 2.2): "usercombo -> expiry:userid",
    "password = base64(hmac(secret key, usercombo))", with SHA-1, as coturn's ``use-auth-secret`` wants it."""
    username = f"{expires_at}:{user}"
    digest = hmac.digest(secret.encode(), username.encode(), hashlib.sha1)
    return Credentials(username, base64.b64encode(digest).decode(), expires_at)


def read_secret(settings: Settings) -> str:
    """The secret shared with the TURN server; empty if none is set. Raises ConfigError."""
    if settings.turn_secret and settings.turn_secret_file:
        raise ConfigError("RTC_SERVER_TURN_SECRET and --turn-secret-file are both set: one of them is enough.")
    if not settings.turn_secret_file:
        return settings.turn_secret
    try:
        secret = Path(settings.turn_secret_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            f"--turn-secret-file {settings.turn_secret_file} cannot be read: {reason}.",
            hint="It holds the static-auth-secret of coturn, on one line. "
            f"{invocation.command('turn')} makes one: turn/.secret.",
        ) from error
    if not secret:
        raise ConfigError(
            f"--turn-secret-file {settings.turn_secret_file} is empty.",
            hint=f"Make a secret: openssl rand -hex 32 > {settings.turn_secret_file}",
        )
    return secret


class IceServers:
    """What to tell clients. Raises ConfigError for settings that cannot work."""

    def __init__(self, settings: Settings) -> None:
        self._stun = _checked("--stun-urls", settings.stun_urls, {"stun", "stuns"})
        self._turn = _checked("--turn-urls", settings.turn_urls, {"turn", "turns"})
        self._secret = read_secret(settings)
        self._ttl_s = settings.turn_ttl_s
        if self._turn and not self._secret:
            raise ConfigError(
                "--turn-urls needs the secret that is shared with the TURN server.",
                hint="Name its file with --turn-secret-file, or put it into RTC_SERVER_TURN_SECRET.",
            )

    @property
    def expires_in_s(self) -> int | None:
        """For how long what is handed out now is valid; None where nothing expires."""
        return self._ttl_s if self._turn else None

    @property
    def urls(self) -> list[str]:
        return [*self._stun, *self._turn]

    def for_user(self, user: str, now: float) -> list[IceServer]:
        """The list for ``RTCPeerConnection``. ``user`` is whatever tells users apart; it stays in here."""
        servers: list[IceServer] = [{"urls": list(self._stun)}] if self._stun else []
        if self._turn:
            mine = self.credentials(user, now)
            servers.append({"urls": list(self._turn), "username": mine.username, "credential": mine.password})
        return servers

    def link_headers(self, user: str, now: float) -> list[str]:
        """One ``Link`` value for each URL, as WHIP wants them (RFC 9725, section 4.6)."""
        links = [f'<{url}>; rel="ice-server"' for url in self._stun]
        if self._turn:
            mine = self.credentials(user, now)
            links += [
                f'<{url}>; rel="ice-server"; username="{mine.username}"; credential="{mine.password}"; '
                'credential-type="password"'
                for url in self._turn
            ]
        return links

    def credentials(self, user: str, now: float) -> Credentials:
        """A user has the same id each time, so that the TURN server's quota for one user holds; who that is, the
        TURN server and its log cannot tell. Needs a secret."""
        assert self._secret, "without a secret there are no credentials"
        digest = hmac.digest(self._secret.encode(), b"user:" + user.encode("utf-8", "surrogatepass"), hashlib.sha256)
        user_id = base64.b32encode(digest).decode().lower()[:_USER_CHARACTERS]
        return make_credentials(self._secret, user_id, int(now) + self._ttl_s)


def user_key(name: str, address: str) -> str:
    """Key that tells users apart: a name, which several may share, and an address. Of an IPv6 address only the part
    that a site is given counts: a host takes as many of the others as it likes."""
    return f"{name}\0{counted_by(parse_address(address)) or address}"


def _checked(option: str, urls: Iterable[str], schemes: set[str]) -> tuple[str, ...]:
    parsed = [parse_uri(url) for url in urls]
    for uri in parsed:
        if uri.scheme not in schemes:
            other = "--stun-urls" if uri.scheme.startswith("stun") else "--turn-urls"
            raise ConfigError(f"{option}: {uri.text!r} belongs to {other}.")
    return tuple(uri.text for uri in parsed)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _hint(text: str) -> str:
    if "//" in text:
        return "These URLs have no slashes: turn:turn.example.org:3478?transport=tcp"
    if text.count(":") > 2 and "[" not in text:  # noqa: PLR2004 - after the scheme and before the port
        return "An IPv6 address stands in brackets: turn:[2001:db8::1]:3478"
    return "As stun:HOST:PORT, turn:HOST:PORT, turn:HOST:PORT?transport=tcp or turns:HOST:PORT?transport=tcp."
