"""Certificates: which files are refused and with what words, and renewal without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from rtc_server.config import Settings
from rtc_server.errors import ConfigError
from rtc_server.web.self_signed import SELF_SIGNED_FILE
from rtc_server.web.tls import Certificate, make_certificate
from tests.web.conftest import Scenario

NOW = datetime.now(UTC)


def issue(directory: Path, name: str = "voice.example.com", days: int = 90, stem: str = "cert") -> tuple[Path, Path]:
    """A certificate and its key, in two files, as certbot leaves them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / f"{stem}.pem", directory / f"{stem}-key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def sans(path: Path) -> set[str]:
    found = x509.load_pem_x509_certificate(path.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


@contextlib.asynccontextmanager
async def listening(certificate: Certificate) -> AsyncIterator[int]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=certificate.context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def presented(port: int, name: str | None = None, **settings: Any) -> tuple[x509.Certificate, ssl.SSLObject]:
    """Who answers there. ``name`` goes along as SNI."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for key, value in settings.items():
        setattr(context, key, value)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name or "")
    assert await reader.read() == b"hello"
    connection = writer.get_extra_info("ssl_object")
    certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
    writer.close()
    return certificate, connection


def test_the_certificate_that_is_served(tmp_path: Path, run: Callable[[Scenario], None]) -> None:
    certificate = Certificate(*issue(tmp_path))

    async def scenario() -> None:
        async with listening(certificate) as port:
            for name in ("voice.example.com", "other.example", None):
                found, connection = await presented(port, name)
                assert found == certificate.leaf
                assert connection.version() == "TLSv1.3"

    run(scenario)
    assert certificate.names() == ["voice.example.com"]
    assert not certificate.self_made


def test_old_versions_of_tls_are_not_spoken(tmp_path: Path, run: Callable[[Scenario], None]) -> None:
    certificate = Certificate(*issue(tmp_path))
    assert certificate.context.minimum_version == ssl.TLSVersion.TLSv1_2

    async def scenario() -> None:
        async with listening(certificate) as port:
            _, connection = await presented(port, maximum_version=ssl.TLSVersion.TLSv1_2)
            assert connection.version() == "TLSv1.2"
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            old.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", port, ssl=old, server_hostname="")

    with pytest.warns(DeprecationWarning, match="TLSv1"):
        run(scenario)


def test_renewal_without_a_restart(tmp_path: Path, run: Callable[[Scenario], None]) -> None:
    """New connections get the new certificate, with SNI and without; nothing else changes."""
    certificate = Certificate(*issue(tmp_path))

    async def scenario() -> None:
        async with listening(certificate) as port:
            old = certificate.leaf
            assert not certificate.refresh()
            issue(tmp_path, "new.example.com")
            assert (await presented(port))[0] == old
            assert certificate.refresh()
            assert certificate.leaf != old
            for name in ("new.example.com", None):
                for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                    assert (await presented(port, name, maximum_version=version))[0] == certificate.leaf
            assert not certificate.refresh()

    run(scenario)
    assert certificate.names() == ["new.example.com"]


def test_it_is_seen_by_itself(tmp_path: Path, run: Callable[[Scenario], None]) -> None:
    certificate = Certificate(*issue(tmp_path))
    old = certificate.leaf

    async def scenario() -> None:
        watching = asyncio.create_task(certificate.watch(interval_s=0.01))
        issue(tmp_path)
        async with asyncio.timeout(20):
            while certificate.leaf == old:  # noqa: ASYNC110 - it is a thread that changes it
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    run(scenario)


def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path) -> None:
    """As certbot renews: new files, and then the links."""
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    links = tmp_path / "chain.pem", tmp_path / "key.pem"
    for link, file in zip(links, issue(tmp_path / "1"), strict=True):
        link.symlink_to(file)
    certificate = Certificate(*links)
    for link, file in zip(links, issue(tmp_path / "2", "new.example.com"), strict=True):
        link.unlink()
        link.symlink_to(file)
    assert certificate.refresh()
    assert certificate.names() == ["new.example.com"]


@pytest.mark.parametrize("fault", ["half", "gone", "rubbish"])
def test_a_renewal_that_does_not_serve_changes_nothing(
    tmp_path: Path, fault: str, run: Callable[[Scenario], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Between the two files of a renewal one is new and the other old. It is logged once, and taken once it serves."""
    chain, key = issue(tmp_path)
    certificate = Certificate(chain, key)
    old = certificate.leaf
    new_chain, new_key = issue(tmp_path, "new.example.com", stem="new")

    async def scenario() -> None:
        async with listening(certificate) as port:
            if fault == "half":
                chain.write_bytes(new_chain.read_bytes())
            elif fault == "gone":
                chain.unlink()
            else:
                chain.write_text("rubbish")
            for _ in range(3):
                assert not certificate.refresh()
                assert (await presented(port))[0] == old
            assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
            chain.write_bytes(new_chain.read_bytes())
            key.write_bytes(new_key.read_bytes())
            assert certificate.refresh()
            assert (await presented(port))[0] == certificate.leaf != old

    run(scenario)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda chain, _: chain.unlink(), "Cannot read .*--tls-cert"),
        (lambda _, key: key.unlink(), "Cannot read .*--tls-key"),
        (lambda chain, _: chain.write_text("rubbish"), "not PEM"),
        (lambda chain, _: chain.write_text(""), "not PEM"),
        (lambda _, key: key.write_text("rubbish"), "not PEM"),
        (lambda chain, key: key.write_bytes(chain.read_bytes()), "not PEM"),
        (lambda _, key: key.write_bytes(issue(key.parent, stem="other")[1].read_bytes()), "not the certificate's"),
        (
            lambda _, key: key.write_bytes(
                load_pem_private_key(key.read_bytes(), None).private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
                )
            ),
            "do not serve",
        ),
    ],
    ids=["no chain", "no key", "chain", "empty", "key", "chain for key", "another's key", "password"],
)
def test_files_that_do_not_serve(tmp_path: Path, damage: Callable[[Path, Path], object], words: str) -> None:
    """Said at the start, with a hint; no one is asked for a password."""
    chain, key = issue(tmp_path)
    damage(chain, key)
    with pytest.raises(ConfigError, match=words) as refused:
        make_certificate(Settings(tls_cert=str(chain), tls_key=str(key)))
    assert refused.value.hint


def test_one_that_expires_soon_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Certificate(*issue(tmp_path, days=90))
    assert not caplog.records
    Certificate(*issue(tmp_path, days=5))
    assert "valid until" in caplog.text


def test_without_settings_there_is_none() -> None:
    assert make_certificate(Settings()) is None


def test_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start takes what the first has made; when it is due, it is renewed without a third."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = Settings(tls="self-signed", host="0.0.0.0", public_ip="203.0.113.9/10.0.0.7")
    first, second = make_certificate(settings), make_certificate(settings)
    assert first is not None
    assert second is not None
    assert first.leaf == second.leaf
    assert first.self_made
    assert {"203.0.113.9", "10.0.0.7", "localhost"} <= sans(tmp_path / "rtc-server" / SELF_SIGNED_FILE)
    assert not first.refresh()
    (tmp_path / "rtc-server" / SELF_SIGNED_FILE).unlink()
    assert first.refresh()
    assert first.leaf != second.leaf
