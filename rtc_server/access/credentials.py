"""Verifies API keys and signed tokens, and makes new ones. Pure; time is an argument.

A key is 256 random bits, and the file of keys has the SHA-256 of each. That is enough: a slow, salted hash makes
guesses expensive, and there is nothing to guess in 256 random bits. It would only let strangers spend our CPU time.
Tokens are JWTs (RFC 7519) of exactly one algorithm, which the file names and the token cannot choose (RFC 8725, 3.1).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from rtc_server.access.principals import Principal
from rtc_server.errors import ConfigError, Unauthorized

MAX_CREDENTIAL_BYTES: Final = 4096
"""A key has 47, a token of any sense some hundreds."""
_KEY_BYTES: Final = 32
_KEY_PREFIX: Final = "rtc_"
"""So that programs which look for secrets in commits can know one."""
_FORM: Final = re.compile(rf"{_KEY_PREFIX}[A-Za-z0-9_-]{{43}}|(ek_)?eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
HASH_PREFIX: Final = "sha256:"
MIN_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518, section 3.2: a key of the same size as the hash output or larger."""
RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
ALGORITHMS: Final = (*MIN_SECRET_BYTES, *RSA_ALGORITHMS, *CURVES, "EdDSA")
MAX_NAME: Final = 256
_MAX_SERVICES: Final = 64
MAX_NUMBER: Final = 2**53
DEFAULT_LEEWAY_S: Final = 10.0
"""By how much the signer's clock and ours may differ: machines that ask for the time are mostly within a second."""


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of ``[[keys]]``: the SHA-256 of a key, and who has it."""

    digest: bytes
    principal: Principal


@dataclass(frozen=True, slots=True)
class TokenRules:
    """``[jwt]``: whose signature counts, and for what. ``key``: the secret, or the public key in PEM."""

    algorithm: str
    key: bytes = field(repr=False)
    audience: str
    issuer: str | None = None
    leeway_s: float = DEFAULT_LEEWAY_S
    max_age_s: float | None = None


class Authenticator:
    """Turns a credential into a principal. Pure; time is an argument, in seconds since 1970."""

    def __init__(self, keys: Sequence[Key], tokens: TokenRules | None = None) -> None:
        self._keys = tuple(keys)
        self.tokens = tokens

    def authenticate(self, credential: str, now: float) -> Principal:
        """Whose key or token this is. Raises Unauthorized, which does not say what was wrong with it."""
        raw = credential.encode(errors="replace")
        if not raw or len(raw) > MAX_CREDENTIAL_BYTES:
            raise Unauthorized
        found = self._key_holder(raw)
        if found is None and self.tokens is not None:
            found = _token_holder(self.tokens, raw, now)
        if found is None:
            raise Unauthorized
        return found

    @property
    def services(self) -> frozenset[str]:
        """Those that keys name."""
        return frozenset().union(*(key.principal.services or () for key in self._keys))

    def knows(self, name: str) -> bool:
        """Whether there is a key whose principal has this name."""
        return any(key.principal.name == name for key in self._keys)

    def _key_holder(self, raw: bytes) -> Principal | None:
        """All are compared, each in constant time: how long it takes tells nothing of which, or how nearly."""
        digest = hashlib.sha256(raw).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key.principal
        return found


def _token_holder(rules: TokenRules, raw: bytes, now: float) -> Principal | None:
    """PyJWT checks the signature, the audience and the issuer; the times are ours, for its clock cannot be set."""
    try:
        claims = jwt.decode(
            raw,
            rules.key,
            algorithms=[rules.algorithm],
            audience=rules.audience,
            issuer=rules.issuer,
            options={
                "require": ["exp", "aud"] if rules.max_age_s is None else ["exp", "aud", "iat"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    return _principal_of(claims, raw, rules.leeway_s) if _is_current(rules, claims, now) else None


def _is_current(rules: TokenRules, claims: Mapping[str, Any], now: float) -> bool:
    """RFC 7519, section 4.1: ``exp`` is the time "on or after which the JWT MUST NOT be accepted", ``nbf`` the one
    "before which [it] MUST NOT be accepted". One from the future (``iat``) tells of a clock or a signer gone wrong."""
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if not all(is_number(value) for value in times.values()):
        return False
    leeway_s = rules.leeway_s
    return (
        now < times["exp"] + leeway_s
        and times.get("nbf", now) <= now + leeway_s
        and times.get("iat", now) <= now + leeway_s
        and (rules.max_age_s is None or now - times["iat"] <= rules.max_age_s + leeway_s)
    )


def _principal_of(claims: Mapping[str, Any], raw: bytes, leeway_s: float) -> Principal | None:
    subject = claims.get("sub")
    if subject is None:
        name = f"token/{hashlib.sha256(raw).hexdigest()}"
    elif isinstance(subject, str) and len(subject) <= MAX_NAME:
        name = f"sub/{subject}"
    else:
        return None
    services, max_session_s = claims.get("services"), claims.get("max_session_s")
    if services is not None and not are_names(services):
        return None
    if max_session_s is not None and not (is_number(max_session_s) and max_session_s > 0):
        return None
    expires_at = claims["exp"] + leeway_s
    return Principal(name, None if services is None else frozenset(services), max_session_s, expires_at=expires_at)


def are_names(value: object) -> bool:
    """Whether it is a list of names of services, not too many."""
    return isinstance(value, list) and len(value) <= _MAX_SERVICES and all(isinstance(name, str) for name in value)


def is_number(value: object) -> bool:
    """JSON as Python reads it has NaN, infinities, and integers that no float can hold; and true is an int."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def new_key() -> str:
    return _KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def is_like_one(text: str) -> bool:
    """Whether it has the form of a key, or of a token."""
    return _FORM.fullmatch(text) is not None


def hash_of(key: str) -> str:
    """As the file of keys has it."""
    return HASH_PREFIX + hashlib.sha256(key.encode()).hexdigest()


def sign_token(
    rules: TokenRules,
    now: float,
    ttl_s: float,
    subject: str | None = None,
    services: Iterable[str] | None = None,
    max_session_s: float | None = None,
) -> str:
    """A token that these rules take, to try the server out. Raises ConfigError unless they are of HMAC:
    with all the others this server has the public key alone."""
    if rules.algorithm not in MIN_SECRET_BYTES:
        raise ConfigError(
            f"Tokens of {rules.algorithm} are signed with a private key, which this server does not have.",
            hint='Sign them where the key is. For a trial, take algorithm = "HS256" and a secret_file.',
        )
    claims: dict[str, Any] = {"aud": rules.audience, "iat": int(now), "exp": int(now + ttl_s)}
    optional = {
        "iss": rules.issuer,
        "sub": subject,
        "services": None if services is None else sorted(services),
        "max_session_s": max_session_s,
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    return jwt.encode(claims, rules.key, algorithm=rules.algorithm)
