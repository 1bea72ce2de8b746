"""The DTLS handshake with peers of all kinds: cipher suites, whose certificate it is, and why a handshake failed.

All that touches the private parts of aiortc's DTLS transport. What is assumed of them is said in
``tests/webrtc/test_aiortc_contract.py``. Knows nothing of sessions: a failure is told to those who ask for it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Final, cast

from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import (
    RTCDtlsParameters,
    RTCDtlsTransport,
    SRTPProtectionProfile,
    State,
    certificate_digest,
)
from OpenSSL import SSL

_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
)
"""What browsers take. A suite names the kind of key that the DTLS server's certificate has: those with RSA are for
peers that are the DTLS server and have such a key (GStreamer, many small devices). RFC 8827, section 6.5, asks for the
first alone."""

_STRONGEST_FIRST: Final = ("sha-512", "sha-384", "sha-256")
"""The hash functions of fingerprints that are taken (RFC 8122, section 5); SHA-1 is broken."""

NO_COMMON_CIPHER: Final = "there is no cipher suite in common"
UNKNOWN_CURVE: Final = "the client's certificate is on a curve that is not supported: secp256r1 is"
REFUSED_BY_PEER: Final = "the client broke it off with an alert"
WRONG_CERTIFICATE: Final = "the client's certificate is not the one that the offer's a=fingerprint names"
NO_COMMON_SRTP: Final = "there is no SRTP profile in common"
UNKNOWN_CAUSE: Final = "what the client sent is not a handshake that this server can take"

_CAUSES: Final = {
    "no shared cipher": NO_COMMON_CIPHER,
    "wrong curve": UNKNOWN_CURVE,
    "unsupported elliptic curve": UNKNOWN_CURVE,
    "no shared groups": UNKNOWN_CURVE,
}
"""OpenSSL's reasons, and what they mean for the client."""


@dataclass(frozen=True, slots=True)
class HandshakeFailure:
    """``cause``: for the peer, in words of ours. ``reason``: OpenSSL's own, for the log; empty if there is none."""

    cause: str
    reason: str = ""


class Certificate(RTCCertificate):
    """A certificate of aiortc's whose connections also take peers with RSA keys."""

    @classmethod
    def of(cls, before: RTCCertificate) -> Certificate:
        """The same certificate."""
        return cls(before._key, before._cert)

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(":".join(_CIPHERS).encode())
        # A peer that is the DTLS server could ask for a handshake as often as it likes, and no one looks at the
        # certificate that it shows then.
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        return context


class DtlsTransport(RTCDtlsTransport):
    """aiortc's, which says why its handshake failed, and takes a certificate that one of the fingerprints names."""

    _watched: _WatchedConnection | None = None
    _refusal: str | None = None

    @property
    def failure(self) -> HandshakeFailure | None:
        """Why the handshake failed; None if it did not, or not by what the peer sent."""
        if self._refusal is not None:
            return HandshakeFailure(self._refusal)
        reason = None if self._watched is None else self._watched.reason
        if reason is None:
            return None
        alert = " alert " in f" {reason} "
        return HandshakeFailure(REFUSED_BY_PEER if alert else _CAUSES.get(reason, UNKNOWN_CAUSE), reason)

    async def _do_handshake(self) -> None:
        """aiortc's, in which OpenSSL's reasons are lost: it gives each only once, when a datagram is read."""
        connection: Any = self._ssl
        self._watched = watched = _WatchedConnection(connection)
        self._ssl = cast("SSL.Connection", watched)
        try:
            await super()._do_handshake()
        finally:
            self._ssl = connection

    def _validate_peer_identity(self, remoteParameters: RTCDtlsParameters) -> None:  # noqa: N803 - aiortc's name
        """RFC 8122, section 5: of the strongest hash function, one fingerprint has to fit."""
        assert self._ssl is not None, "the handshake is done"
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        assert certificate is not None, "none is an error in the handshake"
        offered = [(each.algorithm.lower(), each.value.upper()) for each in remoteParameters.fingerprints]
        algorithm = next((known for known in _STRONGEST_FIRST if any(known == name for name, _ in offered)), None)
        if algorithm is None or (algorithm, certificate_digest(certificate, algorithm)) not in offered:
            self._refuse(WRONG_CERTIFICATE)

    def _setup_srtp(self) -> None:
        assert self._ssl is not None, "the handshake is done"
        if self._ssl.get_selected_srtp_profile():
            super()._setup_srtp()
        else:
            self._refuse(NO_COMMON_SRTP)

    def _refuse(self, cause: str) -> None:
        self._refusal = cause
        self._set_state(State.FAILED)


class _WatchedConnection:
    """An OpenSSL connection that remembers the first reason for which it failed."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self.reason: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def recv(self, size: int) -> bytes:
        with self._remembered():
            return self._connection.recv(size)

    def do_handshake(self) -> None:
        with self._remembered():
            self._connection.do_handshake()

    @contextlib.contextmanager
    def _remembered(self) -> Any:
        try:
            yield
        except (SSL.WantReadError, SSL.ZeroReturnError):
            raise
        except SSL.Error as error:
            if self.reason is None:
                reasons = [entry[-1] for entry in error.args[0]] if error.args and error.args[0] else [""]
                self.reason = reasons[0]
            raise
