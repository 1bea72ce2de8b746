"""Tokens that are signed as clients of the server sign them, and what they are held against."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rtc_server.access.credentials import TokenRules
from rtc_server.access.principals import Principal

NOW = 1_800_000_000.0


SECRET = b"s" * 64


AUDIENCE = "voice"


RULES = TokenRules("HS256", SECRET, AUDIENCE)


KIOSK = Principal("key/kiosk", operator=True)


RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


PRIVATE: dict[str, Any] = {
    **{name: RSA_KEY for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")},
    **{name: ec.generate_private_key(curve) for name, curve in CURVES.items()},
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public_pem(key: Any) -> bytes:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert isinstance(pem, bytes)
    return pem


def claims(**changes: Any) -> dict[str, Any]:
    """Good ones, changed; ``...`` takes one out."""
    made = {"exp": NOW + 60, "aud": AUDIENCE, "sub": "ada", **changes}
    return {name: value for name, value in made.items() if value is not ...}


def token(secret: bytes = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    """Signed here and not by PyJWT, which does not write everything that a stranger may."""
    digests = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}

    def encode(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    head = encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    signed = f"{head}.{encode(json.dumps(claims(**changes)).encode())}"
    signature = b"" if algorithm == "none" else hmac.new(secret, signed.encode(), digests[algorithm]).digest()
    return f"{signed}.{encode(signature)}"
