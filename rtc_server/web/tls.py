"""HTTPS: loads the certificate, renews it while the server runs, or makes one.

Browsers give a page the microphone only over HTTPS, or on ``localhost``. So a phone on the same network needs a
certificate even where no authority issues one. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from rtc_server import config
from rtc_server.config import Settings
from rtc_server.errors import ConfigError
from rtc_server.web.self_signed import keep_self_signed, own_addresses, own_names

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S: Final = 60.0
_WARN_BEFORE: Final = timedelta(days=7)


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
