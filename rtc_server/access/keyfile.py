"""Reads the key file of ``--auth``, checks every entry, and adds keys to it. Errors name the entry, never a secret."""

from __future__ import annotations

import hashlib
import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rtc_server.access.credentials import (
    ALGORITHMS,
    CURVES,
    DEFAULT_LEEWAY_S,
    HASH_PREFIX,
    MAX_NAME,
    MAX_NUMBER,
    MIN_SECRET_BYTES,
    RSA_ALGORITHMS,
    Authenticator,
    Key,
    TokenRules,
    are_names,
    is_like_one,
    is_number,
)
from rtc_server.access.principals import Principal
from rtc_server.errors import ConfigError
from rtc_server.system.files import warn_if_readable_by_all
from rtc_server.usage.spelling import did_you_mean, nearest

logger = logging.getLogger(__name__)

_MIN_RSA_BITS: Final = 2048
_MAX_LEEWAY_S: Final = 300.0
_NEW_FILE_MODE: Final = 0o640
_NEW_KEY: Final = "rtc-server auth-key --name NAME --auth FILE makes a key, and adds it to this file."
_NEW_SECRET: Final = "A good one: openssl rand -base64 48"  # noqa: S105 - how to make one
_PUBLIC: Final = "openssl pkey -in private.pem -pubout gives the public key of a private one."


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
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_NAME):
            raise self.wrong(f"{name} must be a text of 1 to {MAX_NAME} characters.")
        return value

    def needed(self, name: str, hint: str | None = None) -> str:
        value = self.text(name)
        if value is None:
            similar = nearest(name, self._left)
            raise self.wrong(
                f"{name} is missing{'' if similar is None else f', and there is no setting {similar}'}.", hint
            )
        return value

    def seconds(self, name: str, low: float, high: float = MAX_NUMBER) -> float | None:
        value = self._take(name)
        if value is not None and not (is_number(value) and low <= value <= high):
            most = "" if high == MAX_NUMBER else f" and at most {high:g}"
            raise self.wrong(f"{name} must be a number of seconds, at least {low:g}{most}.")
        return None if value is None else float(value)

    def names(self, name: str) -> frozenset[str] | None:
        value = self._take(name)
        if value is not None and not are_names(value):
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
        return tomllib.loads(raw.decode("utf-8-sig"))  # editors of Windows begin with a mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", hint=_NEW_KEY) from None


def _read(path: Path, what: str) -> bytes:
    if is_like_one(str(path)):
        raise ConfigError(f"{what} wants the name of a file, and was given a key.", _NEW_KEY)
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
        raw = bytes.fromhex(digest.removeprefix(HASH_PREFIX))
    except ValueError:
        raw = b""
    if not digest.startswith(HASH_PREFIX) or len(raw) != hashlib.sha256().digest_size:
        raise table.wrong(f"hash must be {HASH_PREFIX} and 64 hexadecimal digits.", _NEW_KEY)
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
    if algorithm in MIN_SECRET_BYTES:
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
    if len(secret) < MIN_SECRET_BYTES[algorithm]:
        raise table.wrong(f"the secret must have at least {MIN_SECRET_BYTES[algorithm]} bytes.", _NEW_SECRET)
    try:
        jwt.get_algorithm_by_name(algorithm).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise table.wrong("secret_file holds a key pair's part, or a certificate, not a secret.", _NEW_SECRET) from None
    warn_if_readable_by_all(path)
    return secret


def _read_public_key(table: _Table, path: Path, algorithm: str) -> bytes:
    pem = _read(path, "public_key_file")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise table.wrong("public_key_file is not a public key in PEM.", _PUBLIC) from None
    if algorithm in RSA_ALGORITHMS:
        fits = isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS
        wanted = f"an RSA key of at least {_MIN_RSA_BITS} bits"
    elif algorithm in CURVES:
        fits = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == CURVES[algorithm]
        wanted = f"a key of the curve {CURVES[algorithm]}"
    else:
        fits = isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
        wanted = "a key of Ed25519 or Ed448"
    if not fits:
        raise table.wrong(f"{algorithm} wants {wanted}.", _PUBLIC)
    return pem
