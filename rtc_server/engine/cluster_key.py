"""The secret that engines and media nodes of one cluster share, and the keys that follow from it.

Each side proves that it has the secret, and all that goes between them is encrypted (CurveZMQ, RFC 26): the two key
pairs are derived from it, so that a cluster needs one file, the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zmq.utils import z85

from rtc_server.errors import ConfigError
from rtc_server.system.files import warn_if_readable_by_all

MIN_BYTES: Final = 32
_MAX_BYTES: Final = 4096
_KEY_BYTES: Final = 32
HINT: Final = "Make one, and give each machine of the cluster the same: openssl rand -base64 48 > FILE"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """As ZeroMQ wants them: 40 characters of Z85 each."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """``engine``: what every engine has; ``node``: what every media node has; ``pool``: what their pool has.
    ``requests``: the secret with which media nodes sign what they pass on to each other."""

    engine: KeyPair
    node: KeyPair
    pool: KeyPair
    requests: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> ClusterKey:
        """Derive the keys from a secret of at least :data:`MIN_BYTES`."""
        engine, node, pool = (_pair(_derive(secret, role)) for role in (b"engine", b"node", b"pool"))
        return cls(engine, node, pool, _derive(secret, b"requests"))

    @classmethod
    def read(cls, path: Path) -> ClusterKey:
        """Derive the keys from a file's content. Raises ConfigError, which never shows it."""
        try:
            with path.open("rb") as file:
                secret = file.read(_MAX_BYTES + 1).strip()
            warn_if_readable_by_all(path)
        except OSError as error:
            raise ConfigError(f"--cluster-key {path} cannot be read: {error.strerror}.", hint=HINT) from error
        if not MIN_BYTES <= len(secret) <= _MAX_BYTES:
            raise ConfigError(f"--cluster-key {path} must hold {MIN_BYTES} to {_MAX_BYTES} bytes.", hint=HINT)
        return cls.of(secret)


def _derive(secret: bytes, role: bytes) -> bytes:
    return HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=b"rtc-server cluster " + role).derive(secret)


def _pair(raw: bytes) -> KeyPair:
    encoded = z85.encode(raw)
    return KeyPair(zmq.curve_public(encoded), encoded)
