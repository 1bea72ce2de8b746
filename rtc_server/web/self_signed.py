"""Makes a certificate that signs itself, for networks where no authority issues one, and keeps it."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rtc_server.access.addresses import Address, is_address
from rtc_server.errors import ConfigError
from rtc_server.system import hardware

SELF_SIGNED_FILE: Final = "self-signed.pem"
_VALID: Final = timedelta(days=397)
"""Apple's devices take no more of a certificate that is new: https://support.apple.com/en-us/102028."""
_RENEW_BEFORE: Final = timedelta(days=30)
_CLOCK_SKEW: Final = timedelta(days=1)
_MAX_COMMON_NAME: Final = 64
_MAX_NAMES: Final = 64


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
