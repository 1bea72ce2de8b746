"""DTLS with peers of all kinds, over a pipe: which certificates connect in which role, and why the others do not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport, generate_certificate
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from lab.waiting import until
from rtc_server.webrtc import dtls
from rtc_server.webrtc.dtls import Certificate, DtlsTransport, HandshakeFailure

KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
}

ALERT = 21
"""RFC 6347, section 4.1: the type of a record."""


class Pipe:
    """One end of an ICE transport that has connected; what is sent arrives at :attr:`other`."""

    role = "controlling"
    other: Pipe

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def _recv(self) -> bytes:
        data = await self._arrived.get()
        if data is None:
            raise ConnectionError
        return data

    async def _send(self, data: bytes) -> None:
        self.other._arrived.put_nowait(data)

    def close(self) -> None:
        self._arrived.put_nowait(None)


class PeerCertificate(RTCCertificate):
    """A certificate of any key, of a peer that is as tolerant as it gets; ``srtp``: the profiles that it offers."""

    ciphers = b"ECDHE+AESGCM:@SECLEVEL=0"
    srtp = b"SRTP_AES128_CM_SHA1_80"

    def _create_ssl_context(self, srtp_profiles: Any) -> SSL.Context:
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_cipher_list(self.ciphers)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        context.use_certificate(self._cert)
        context.use_privatekey(self._key)
        if self.srtp:
            context.set_tlsext_use_srtp(self.srtp)
        return context


def peer_certificate(kind: str) -> PeerCertificate:
    key: Any = KEYS[kind]()
    return PeerCertificate(key, generate_certificate(key))


async def handshake(
    theirs: RTCCertificate, peer_is_server: bool, offered: list[RTCDtlsFingerprint] | None = None
) -> tuple[DtlsTransport, RTCDtlsTransport]:
    """Our transport and the peer's, after the handshake. ``offered``: the fingerprints that the peer claims."""
    near, far = Pipe(), Pipe()
    near.other, far.other = far, near
    ours = Certificate.of(RTCCertificate.generateCertificate())
    us, peer = DtlsTransport(near, [ours]), RTCDtlsTransport(far, [theirs])  # type: ignore[arg-type]
    us._set_role("client" if peer_is_server else "server")
    peer._set_role("server" if peer_is_server else "client")

    async def start(transport: RTCDtlsTransport, fingerprints: list[RTCDtlsFingerprint], end: Pipe) -> None:
        await transport.start(RTCDtlsParameters(fingerprints))
        if transport.state == "failed":
            end.other.close()

    claimed = theirs.getFingerprints() if offered is None else offered
    async with asyncio.timeout(20):
        await asyncio.gather(start(us, claimed, near), start(peer, ours.getFingerprints(), far))
    return us, peer


async def stop(*transports: RTCDtlsTransport) -> None:
    for transport in transports:
        await transport.stop()


@pytest.mark.parametrize("peer_is_server", [True, False], ids=["peer is server", "peer is client"])
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "rsa1024"])
async def test_a_certificate_connects_in_either_role(kind: str, peer_is_server: bool) -> None:
    us, peer = await handshake(peer_certificate(kind), peer_is_server)
    assert (us.state, peer.state, us.failure) == ("connected", "connected", None)
    await stop(us, peer)


async def test_a_certificate_on_a_curve_that_openssl_does_not_know_is_named() -> None:
    """FFmpeg's own: OpenSSL 4 has no secp224r1 for TLS, so nothing can be done but to say so."""
    us, peer = await handshake(peer_certificate("p224"), peer_is_server=False)
    assert us.state == "failed"
    assert us.failure == HandshakeFailure(dtls.UNKNOWN_CURVE, "wrong curve")
    await stop(us, peer)


async def test_a_peer_without_a_cipher_of_ours_is_named() -> None:
    theirs = peer_certificate("p256")
    theirs.ciphers = b"ECDHE-ECDSA-AES256-SHA384"
    us, peer = await handshake(theirs, peer_is_server=False)
    assert (us.state, us.failure) == ("failed", HandshakeFailure(dtls.NO_COMMON_CIPHER, "no shared cipher"))
    await stop(us, peer)


async def test_a_peer_that_breaks_off_is_named() -> None:
    theirs = peer_certificate("p256")
    theirs.ciphers = b"ECDHE-ECDSA-AES256-SHA384"
    us, peer = await handshake(theirs, peer_is_server=True)
    assert us.state == "failed"
    assert us.failure is not None
    assert us.failure.cause == dtls.REFUSED_BY_PEER
    assert "handshake failure" in us.failure.reason
    await stop(us, peer)


async def test_a_peer_without_srtp_is_named() -> None:
    theirs = peer_certificate("p256")
    theirs.srtp = b""
    us, peer = await handshake(theirs, peer_is_server=False)
    assert (us.state, us.failure) == ("failed", HandshakeFailure(dtls.NO_COMMON_SRTP))
    await stop(us, peer)


def fingerprints(*pairs: tuple[str, str]) -> list[RTCDtlsFingerprint]:
    return [RTCDtlsFingerprint(algorithm=algorithm, value=value) for algorithm, value in pairs]


OTHER = ":".join(["AB"] * 32)
OTHER_512 = ":".join(["AB"] * 64)


@pytest.mark.parametrize(
    ("case", "state"),
    [
        ("right", "connected"),
        ("right, in lower case", "connected"),
        ("wrong", "failed"),
        ("of two certificates, the second", "connected"),
        ("a broken hash beside it", "connected"),
        ("the stronger hash wrong", "failed"),
        ("none that is known", "failed"),
    ],
)
async def test_one_fingerprint_of_the_strongest_hash_has_to_fit(case: str, state: str) -> None:
    """RFC 8122, section 5."""
    theirs = peer_certificate("p256")
    right = next(each.value for each in theirs.getFingerprints() if each.algorithm == "sha-256")
    offered = {
        "right": fingerprints(("sha-256", right)),
        "right, in lower case": fingerprints(("SHA-256", right.lower())),
        "wrong": fingerprints(("sha-256", OTHER)),
        "of two certificates, the second": fingerprints(("sha-256", OTHER), ("sha-256", right)),
        "a broken hash beside it": fingerprints(("sha-1", "AB"), ("sha-256", right)),
        "the stronger hash wrong": fingerprints(("sha-256", right), ("sha-512", OTHER_512)),
        "none that is known": fingerprints(("sha-1", "AB")),
    }[case]
    us, peer = await handshake(theirs, peer_is_server=True, offered=offered)
    assert us.state == state
    assert us.failure == (HandshakeFailure(dtls.WRONG_CERTIFICATE) if state == "failed" else None)
    await stop(us, peer)


async def test_no_other_handshake_follows() -> None:
    """A peer that is the DTLS server, and asks for one, gets an alert (RFC 5246, section 7.4.1.1)."""
    us, peer = await handshake(peer_certificate("p256"), peer_is_server=True)
    answers: list[bytes] = []
    pipe: Any = us.transport
    send = pipe._send

    async def sending(data: bytes) -> None:
        answers.append(data)
        await send(data)

    pipe._send = sending
    their_ssl: Any = peer._ssl
    assert their_ssl.renegotiate()
    with contextlib.suppress(SSL.WantReadError):
        their_ssl.do_handshake()
    await peer._write_ssl()
    await until(lambda: bool(answers), "an answer")
    assert [answer[0] for answer in answers] == [ALERT]
    assert us.state == "connected"
    await stop(us, peer)


async def test_a_path_that_ends_in_mid_handshake_is_no_failure_of_dtls() -> None:
    near, far = Pipe(), Pipe()
    near.other, far.other = far, near
    us = DtlsTransport(near, [Certificate.of(RTCCertificate.generateCertificate())])  # type: ignore[arg-type]
    near.close()
    await us.start(RTCDtlsParameters(fingerprints(("sha-256", OTHER))))
    assert (us.state, us.failure) == ("failed", None)
    await us.stop()
