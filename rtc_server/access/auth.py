"""Who is asking: principals, and the keys and tokens that prove one. Knows nothing of HTTP.

A key is 256 random bits, and the file of keys has the SHA-256 of each. That is enough: a slow, salted hash makes
guesses expensive, and there is nothing to guess in 256 random bits. It would only let strangers spend our CPU time.
Tokens are JWTs (RFC 7519) of exactly one algorithm, which the file names and the token cannot choose (RFC 8725, 3.1).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rtc_server.errors import ConfigError, Unauthorized
from rtc_server.usage.spelling import did_you_mean, nearest

logger = logging.getLogger(__name__)

MAX_CREDENTIAL_BYTES: Final = 4096
"""A key has 47, a token of any sense some hundreds."""
_KEY_BYTES: Final = 32
_KEY_PREFIX: Final = "rtc_"
"""So that programs which look for secrets in commits can know one."""
_HASH_PREFIX: Final = "sha256:"
_MIN_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""RFC 7518, section 3.2: a key of the same size as the hash output or larger."""
_MIN_RSA_BITS: Final = 2048
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
ALGORITHMS: Final = (*_MIN_SECRET_BYTES, *_RSA, *_CURVES, "EdDSA")
_MAX_NAME: Final = 256
_MAX_SERVICES: Final = 64
_MAX_NUMBER: Final = 2**53
DEFAULT_LEEWAY_S: Final = 10.0
"""By how much the signer's clock and ours may differ: machines that ask for the time are mostly within a second."""
_MAX_LEEWAY_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Principal:
    """A client that may come in. ``services``: None is all. ``operator``: may look at what concerns all sessions.

    ``name`` tells one from the other and is unique: ``key/NAME``, ``sub/SUBJECT``, ``token/HASH`` where there is no
    subject. It is not for logs. ``expires_at``: when the token is good no longer, in seconds since 1970, the leeway
    included; a key is good until it is taken out of its file.
    """

    name: str
    services: frozenset[str] | None = None
    max_session_s: float | None = None
    operator: bool = False
    expires_at: float | None = field(default=None, compare=False)

    def may_use(self, service: str) -> bool:
        return self.services is None or service in self.services

    def session_s(self, most_s: float) -> float:
        """For how long a session may last on a server where none lasts longer than ``most_s``."""
        return most_s if self.max_session_s is None else min(most_s, self.max_session_s)


ANONYMOUS: Final = Principal("", operator=True)
"""Every client, on a server without ``--auth``."""

NOBODY: Final = Principal("nobody", services=frozenset())
"""A visitor who has not said who they are, at a door that is open all the same, on a server with ``--auth``."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request's principal, and the address that its limits are counted by."""

    principal: Principal
    address: str


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
    if not all(_is_number(value) for value in times.values()):
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
    elif isinstance(subject, str) and len(subject) <= _MAX_NAME:
        name = f"sub/{subject}"
    else:
        return None
    services, max_session_s = claims.get("services"), claims.get("max_session_s")
    if services is not None and not _are_names(services):
        return None
    if max_session_s is not None and not (_is_number(max_session_s) and max_session_s > 0):
        return None
    expires_at = claims["exp"] + leeway_s
    return Principal(name, None if services is None else frozenset(services), max_session_s, expires_at=expires_at)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_SERVICES and all(isinstance(name, str) for name in value)


def _is_number(value: object) -> bool:
    """JSON as Python reads it has NaN, infinities, and integers that no float can hold; and true is an int."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER


# Making keys and tokens.


def new_key() -> str:
    return _KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def hash_of(key: str) -> str:
    """As the file of keys has it."""
    return _HASH_PREFIX + hashlib.sha256(key.encode()).hexdigest()


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
    if rules.algorithm not in _MIN_SECRET_BYTES:
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


# The file.


def load(path: Path) -> Authenticator:
    """Read the file of ``--auth``. Raises ConfigError, which names what is wrong in it, never a secret."""
    return _read_file(_toml_of(_read(path, "--auth"), path), path)


def _read_file(content: Mapping[str, Any], path: Path) -> Authenticator:
    table = _Table(content, str(path))
    keys = [
        _read_key(_Table(entry, f"{path}, [[keys]] {number}")) for number, entry in enumerate(table.tables("keys"), 1)
    ]
    rules = table.table("jwt")
    tokens = None if rules is None else _read_rules(_Table(rules, f"{path}, [jwt]"), path.parent)
    table.nothing_else()
    if not keys and tokens is None:
        raise ConfigError(f"{path} has neither [[keys]] nor [jwt]: nobody could come in.", hint=_NEW_KEY)
    for what, values in (("name", [key.principal.name for key in keys]), ("hash", [key.digest for key in keys])):
        if len(set(values)) < len(values):
            raise ConfigError(f"{path}: two [[keys]] have the same {what}.", hint=_NEW_KEY)
    return Authenticator(keys, tokens)


def add(path: Path, lines: str) -> None:
    """Append ``lines`` to the file of ``--auth``: what it has, its owner and its mode stay. A new one is its owner's,
    and its group may read it. Raises ConfigError, and changes nothing, where the file is wrong or would be."""
    try:
        is_new = not path.exists()
        before = b"" if is_new else path.read_bytes()
        after = b"".join((before, b"\n" if before and not before.endswith(b"\n") else b"", lines.encode()))
        _read_file(_toml_of(after, path), path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, _NEW_FILE_MODE)
        with os.fdopen(descriptor, "ab") as file:
            if is_new:
                os.fchmod(descriptor, _NEW_FILE_MODE)  # whatever the umask says
            file.write(after[len(before) :])
    except OSError as error:
        raise ConfigError(f"Cannot write {path} (--auth): {error.strerror}.") from error


_NEW_FILE_MODE: Final = 0o640
_NEW_KEY: Final = "rtc-server auth-key --name NAME --auth FILE makes a key, and adds it to this file."
_NEW_SECRET: Final = "A good one: openssl rand -base64 48"  # noqa: S105 - how to make one
_PUBLIC: Final = "openssl pkey -in private.pem -pubout gives the public key of a private one."


class _Table:
    """One table of the file. Each value is asked for once; what was never asked for is a mistake of its author."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._left = dict(values)
        self._where = where
        self._asked: list[str] = []

    def wrong(self, what: str, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self._where}: {what}", hint)

    def _take(self, name: str, default: Any = None) -> Any:
        self._asked.append(name)
        return self._left.pop(name, default)

    def text(self, name: str) -> str | None:
        value = self._take(name)
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= _MAX_NAME):
            raise self.wrong(f"{name} must be a text of 1 to {_MAX_NAME} characters.")
        return value

    def needed(self, name: str, hint: str | None = None) -> str:
        value = self.text(name)
        if value is None:
            similar = nearest(name, self._left)
            raise self.wrong(
                f"{name} is missing{'' if similar is None else f', and there is no setting {similar}'}.", hint
            )
        return value

    def seconds(self, name: str, low: float, high: float = _MAX_NUMBER) -> float | None:
        value = self._take(name)
        if value is not None and not (_is_number(value) and low <= value <= high):
            most = "" if high == _MAX_NUMBER else f" and at most {high:g}"
            raise self.wrong(f"{name} must be a number of seconds, at least {low:g}{most}.")
        return None if value is None else float(value)

    def names(self, name: str) -> frozenset[str] | None:
        value = self._take(name)
        if value is not None and not _are_names(value):
            raise self.wrong(f'{name} must be a list of names, as ["echo"].')
        return None if value is None else frozenset(value)

    def table(self, name: str) -> Mapping[str, Any] | None:
        value = self._take(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(f"{name} must be a table: [{name}].")
        return value

    def tables(self, name: str) -> list[Mapping[str, Any]]:
        value = self._take(name, [])
        if not (isinstance(value, list) and all(isinstance(each, dict) for each in value)):
            raise self.wrong(f"{name} must be tables: [[{name}]].")
        return value

    def nothing_else(self) -> None:
        if self._left:
            guess = "".join(did_you_mean(name, self._asked) for name in sorted(self._left)[:1])
            raise self.wrong(f"there is no such setting: {', '.join(sorted(self._left))}.{guess}")


def _toml_of(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", hint=_NEW_KEY) from None


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"Cannot read {path} ({what}): there is no such file.", _NEW_KEY if what == "--auth" else None
        ) from error
    except OSError as error:
        raise ConfigError(f"Cannot read {path} ({what}): {error.strerror}.") from error


def _read_key(table: _Table) -> Key:
    name = table.needed("name")
    digest = table.needed("hash", _NEW_KEY)
    services, max_session_s = table.names("services"), table.seconds("max_session_s", 1)
    table.nothing_else()
    try:
        raw = bytes.fromhex(digest.removeprefix(_HASH_PREFIX))
    except ValueError:
        raw = b""
    if not digest.startswith(_HASH_PREFIX) or len(raw) != hashlib.sha256().digest_size:
        raise table.wrong(f"hash must be {_HASH_PREFIX} and 64 hexadecimal digits.", _NEW_KEY)
    return Key(raw, Principal(f"key/{name}", services, max_session_s, operator=True))


def _read_rules(table: _Table, directory: Path) -> TokenRules:
    algorithm = table.needed("algorithm", f"One of: {', '.join(ALGORITHMS)}.")
    if algorithm not in ALGORITHMS:
        raise table.wrong(f"algorithm must be one of: {', '.join(ALGORITHMS)}.")
    secret_file, public_key_file = table.text("secret_file"), table.text("public_key_file")
    audience = table.needed("audience", "What its tokens have as aud, as the name of this server.")
    issuer = table.text("issuer")
    leeway_s, max_age_s = table.seconds("leeway_s", 0, _MAX_LEEWAY_S), table.seconds("max_age_s", 1)
    table.nothing_else()
    if algorithm in _MIN_SECRET_BYTES:
        if secret_file is None or public_key_file is not None:
            raise table.wrong(f"{algorithm} goes with secret_file, the name of a file.", _NEW_SECRET)
        key = _read_secret(table, directory / secret_file, algorithm)
    else:
        if public_key_file is None or secret_file is not None:
            raise table.wrong(f"{algorithm} goes with public_key_file, the name of a PEM file.", _PUBLIC)
        key = _read_public_key(table, directory / public_key_file, algorithm)
    return TokenRules(algorithm, key, audience, issuer, DEFAULT_LEEWAY_S if leeway_s is None else leeway_s, max_age_s)


def _read_secret(table: _Table, path: Path, algorithm: str) -> bytes:
    """The file's bytes, but for a line break at the end, which editors and ``openssl rand`` leave there."""
    secret = _read(path, "secret_file").rstrip(b"\r\n")
    if len(secret) < _MIN_SECRET_BYTES[algorithm]:
        raise table.wrong(f"the secret must have at least {_MIN_SECRET_BYTES[algorithm]} bytes.", _NEW_SECRET)
    try:
        jwt.get_algorithm_by_name(algorithm).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise table.wrong("secret_file holds a key pair's part, or a certificate, not a secret.", _NEW_SECRET) from None
    if path.stat().st_mode & stat.S_IROTH:
        logger.warning("%s can be read by everybody on this machine", path)
    return secret


def _read_public_key(table: _Table, path: Path, algorithm: str) -> bytes:
    pem = _read(path, "public_key_file")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise table.wrong("public_key_file is not a public key in PEM.", _PUBLIC) from None
    if algorithm in _RSA:
        fits = isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS
        wanted = f"an RSA key of at least {_MIN_RSA_BITS} bits"
    elif algorithm in _CURVES:
        fits = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVES[algorithm]
        wanted = f"a key of the curve {_CURVES[algorithm]}"
    else:
        fits = isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
        wanted = "a key of Ed25519 or Ed448"
    if not fits:
        raise table.wrong(f"{algorithm} wants {wanted}.", _PUBLIC)
    return pem
