"""HTTPS: loads the certificate, renews it while the server runs, or makes one.

Browsers give a page the microphone only over HTTPS, or on ``localhost``. So a phone on the same network needs a
certificate even where no authority issues one. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import socket
import ssl
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rtc_server import config
from rtc_server.access.addresses import Address, is_address
from rtc_server.config import Settings
from rtc_server.errors import ConfigError
from rtc_server.system import hardware

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S: Final = 60.0
SELF_SIGNED_FILE: Final = "self-signed.pem"
_VALID: Final = timedelta(days=397)
"""Apple's devices take no more of a certificate that is new: https://support.apple.com/en-us/102028."""
_RENEW_BEFORE: Final = timedelta(days=30)
_WARN_BEFORE: Final = timedelta(days=7)
_CLOCK_SKEW: Final = timedelta(days=1)
_MAX_COMMON_NAME: Final = 64
_MAX_NAMES: Final = 64


class Certificate:
    """A certificate chain and its key, read again when their files change. Connections that are open keep theirs."""

    def __init__(self, chain: Path, key: Path, renew: Callable[[], object] | None = None) -> None:
        """``renew``: writes the files again where that is due. Raises ConfigError for files that do not serve."""
        self.self_made = renew is not None
        self._chain, self._key = chain, key
        self._renew = renew
        self._seen = self._fingerprint()
        self._current = _load(chain, key)
        self.leaf = _leaf(chain)
        # One context stands in the listening socket. It hands each connection to the one that is current, which is
        # replaced as a whole: loading into a context that is in use would leave it broken by files that do not match.
        self.context = _load(chain, key)
        self.context.sni_callback = self._hand_over
        self._report()

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def refresh(self) -> bool:
        """Take new files, if there are any. Files that do not serve change nothing, and are logged once."""
        if self._renew is not None:
            try:
                self._renew()
            except ConfigError as error:
                logger.error("the certificate cannot be renewed: %s", error.message)
        fingerprint = self._fingerprint()
        if fingerprint == self._seen:
            return False
        self._seen = fingerprint
        try:
            self._current, self.leaf = _load(self._chain, self._key), _leaf(self._chain)
        except ConfigError as error:
            # In the middle of a renewal, too, when one file is new and the other is not.
            logger.error("the certificate's new files are not taken: %s", error.message)
            return False
        self._report()
        return True

    async def watch(self, interval_s: float = CHECK_INTERVAL_S) -> None:
        """Refresh for ever. Cancelling is safe."""
        while True:
            await asyncio.sleep(interval_s)
            await asyncio.to_thread(self.refresh)

    def names(self) -> list[str]:
        """The host names that it is for."""
        try:
            names = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return []
        return names.get_values_for_type(x509.DNSName)

    def sha256(self) -> str:
        """Its fingerprint, as browsers show it."""
        return self.leaf.fingerprint(hashes.SHA256()).hex(":").upper()

    def _fingerprint(self) -> bytes | None:
        """Fingerprint of what is in the files, for a time stamp may stay and a link may point elsewhere; they are a few
        KB."""
        digest = hashlib.sha256()
        with contextlib.suppress(OSError):
            for path in (self._chain, self._key):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            return digest.digest()
        return None

    def _report(self) -> None:
        left = self.leaf.not_valid_after_utc - datetime.now(UTC)
        level = logging.WARNING if left < _WARN_BEFORE else logging.INFO
        logger.log(level, "the certificate is valid until %s", self.leaf.not_valid_after_utc.date())


def make_certificate(settings: Settings) -> Certificate | None:
    """The certificate that the settings ask for; None: plain HTTP. Raises ConfigError."""
    if settings.tls_cert:
        return Certificate(Path(settings.tls_cert), Path(settings.tls_key))
    if settings.tls == "off":
        return None
    directory = config.state_directory()
    more = [settings.host, *settings.public_ip.split("/")]

    def renew() -> Path:
        return keep_self_signed(directory, own_names(more), own_addresses(more), datetime.now(UTC))

    path = renew()
    return Certificate(path, path, renew)


def _load(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path, option in ((chain, "--tls-cert"), (key, "--tls-key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"Cannot read {path} ({option}): {error.strerror}.",
                hint="It must be a PEM file that the server's user may read.",
            ) from error
    try:
        # The password: else OpenSSL would ask for it at the terminal.
        context.load_cert_chain(chain, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"{chain} and {key} do not serve: {_reason(error)}.",
            hint="--tls-cert takes the chain in PEM, the server's own certificate first (certbot: fullchain.pem); "
            "--tls-key its private key in PEM, without a password (certbot: privkey.pem).",
        ) from error
    return context


def _reason(error: OSError) -> str:
    match getattr(error, "reason", None):
        case "KEY_VALUES_MISMATCH":
            return "the key is not the certificate's"
        case "NO_START_LINE" | "PEM_LIB" | None:
            return "one of them is not PEM, or not what it should be"
        case reason:
            return str(reason).lower().replace("_", " ")


def _leaf(chain: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{chain} is not a certificate in PEM.") from error


# One made on the spot.


def keep_self_signed(directory: Path, names: Sequence[str], addresses: Sequence[Address], now: datetime) -> Path:
    """One file with a key and a certificate that it signs itself; made only where there is none that will do, so that
    each browser has to accept it only once. Raises ConfigError if it cannot be written.

    What will do: it is valid for a month yet, and for all of this machine's names and IPv4 addresses. Those of IPv6
    come and go daily (RFC 8981), so they are in it, but missing ones are no reason for another.
    """
    path = directory / SELF_SIGNED_FILE
    old = _read_self_signed(path)
    wanted: set[str | Address] = {*names, *addresses}
    if old is None:
        key, known = ec.generate_private_key(ec.SECP256R1()), set[str | Address]()
    else:
        key, certificate = old
        known = _names_in(certificate)
        needed = {name for name in wanted if not isinstance(name, str) and name.version == 4} | set(names)  # noqa: PLR2004
        if needed <= known and now < certificate.not_valid_after_utc - _RENEW_BEFORE:
            return path
    # Names of yesterday stay, for the machine may go back to that network; up to a bound.
    older = sorted(known - wanted, key=str)[: max(0, _MAX_NAMES - len(wanted))]
    certificate = _sign(key, [*sorted(wanted, key=str), *older], now)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    _write_private(path, pem)
    return path


def own_names(more: Sequence[str] = ()) -> list[str]:
    """``localhost``, and what other machines of the network may call this one."""
    host = socket.gethostname()
    found = ["localhost", host, f"{host.partition('.')[0]}.local", *more]
    names = (name.lower() for name in found if re.fullmatch(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", name))
    return list(dict.fromkeys(name for name in names if not is_address(name)))


def own_addresses(more: Sequence[str] = ()) -> list[Address]:
    """All of this machine's addresses that a URL can name."""
    found = [ip_address(text) for text in ("127.0.0.1", "::1", *hardware.addresses())]
    found += [ip_address(text) for text in more if is_address(text)]
    return list(dict.fromkeys(address for address in found if not (address.is_link_local or address.is_unspecified)))


def _read_self_signed(path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
    """None: there is none, or it is broken, and another is made."""
    try:
        pem = path.read_bytes()
        key, certificate = load_pem_private_key(pem, None), x509.load_pem_x509_certificate(pem)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return key, certificate


def _names_in(certificate: x509.Certificate) -> set[str | Address]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = [ip_address(str(address)) for address in names.get_values_for_type(x509.IPAddress)]
    return {*names.get_values_for_type(x509.DNSName), *addresses}


def _sign(key: ec.EllipticCurvePrivateKey, names: Sequence[str | Address], now: datetime) -> x509.Certificate:
    title = f"rtc-server on {socket.gethostname()}"[:_MAX_COMMON_NAME]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    alternatives = [x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name) for name in names]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now - _CLOCK_SKEW + _VALID)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write_private(path: Path, content: bytes) -> None:
    """In one stroke, and readable by this user alone from the first byte on (``mkstemp`` makes files of mode 0600)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"Cannot write {path}: {error.strerror}.",
            hint="The certificate is kept there, so that browsers have to accept it only once. "
            "XDG_STATE_HOME names another directory.",
        ) from error
