"""A certificate that the server makes for itself: whom it is for, for how long, and where it is kept."""

from __future__ import annotations

import asyncio
import socket
import ssl
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from rtc_server.errors import ConfigError
from rtc_server.web.self_signed import SELF_SIGNED_FILE, keep_self_signed, own_addresses, own_names
from rtc_server.web.tls import Certificate
from tests.web.conftest import Scenario
from tests.web.test_tls import listening, sans

NOW = datetime.now(UTC)
NAMES = ["localhost", "laptop", "laptop.local"]
ADDRESSES = [ip_address(text) for text in ("127.0.0.1", "::1", "192.168.1.7", "2001:db8::7")]


def test_one_made_on_the_spot(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "rtc-server"
    path = keep_self_signed(directory, NAMES, ADDRESSES, NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [file.name for file in directory.iterdir()] == [path.name], "nothing else lies about"
    assert sans(path) == {*NAMES, *map(str, ADDRESSES)}
    found = x509.load_pem_x509_certificate(path.read_bytes())
    assert isinstance(found.public_key(), ec.EllipticCurvePublicKey)
    assert found.not_valid_before_utc < NOW
    assert timedelta(days=390) < found.not_valid_after_utc - NOW < timedelta(days=398)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_client_that_trusts_it_reaches_every_name(tmp_path: Path, run: Callable[[Scenario], None]) -> None:
    """All that a browser checks but the one thing that it cannot know."""
    path = keep_self_signed(tmp_path, NAMES, ADDRESSES, NOW)

    async def scenario() -> None:
        async with listening(Certificate(path, path)) as port:
            for name in (*NAMES, "127.0.0.1", "192.168.1.7", "2001:db8::7"):
                context = ssl.create_default_context(cafile=str(path))
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
                assert await reader.read() == b"hello"
                writer.close()
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="other.example")

    run(scenario)


def test_it_is_kept(tmp_path: Path) -> None:
    """A phone accepts it once. IPv6 addresses that come and go do not change it."""
    path = keep_self_signed(tmp_path, NAMES, ADDRESSES, NOW)
    first = path.read_bytes()
    later = NOW + timedelta(days=300)
    assert keep_self_signed(tmp_path, NAMES, ADDRESSES, later).read_bytes() == first
    assert keep_self_signed(tmp_path, NAMES[:1], ADDRESSES[:1], later).read_bytes() == first
    another = [*ADDRESSES, ip_address("2001:db8::8")]
    assert keep_self_signed(tmp_path, NAMES, another, later).read_bytes() == first


def test_it_is_renewed_before_it_expires_with_the_same_key(tmp_path: Path) -> None:
    path = keep_self_signed(tmp_path, NAMES, ADDRESSES, NOW)
    first = x509.load_pem_x509_certificate(path.read_bytes())
    keep_self_signed(tmp_path, NAMES, ADDRESSES, NOW + timedelta(days=370))
    second = x509.load_pem_x509_certificate(path.read_bytes())
    assert second.not_valid_after_utc > first.not_valid_after_utc + timedelta(days=300)
    assert second.public_key() == first.public_key()


def test_a_new_address_is_added_to_those_of_other_networks(tmp_path: Path) -> None:
    path = keep_self_signed(tmp_path, NAMES, ADDRESSES, NOW)
    keep_self_signed(tmp_path, NAMES, [ip_address("10.0.0.9")], NOW)
    assert sans(path) == {*NAMES, *map(str, ADDRESSES), "10.0.0.9"}
    for number in range(100):
        keep_self_signed(tmp_path, NAMES, [ip_address(f"10.0.1.{number}")], NOW)
    assert len(sans(path)) <= 64
    assert {*NAMES, "10.0.1.99"} <= sans(path)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"-----BEGIN PRIVATE KEY-----\n"])
def test_one_that_is_broken_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / SELF_SIGNED_FILE
    path.write_bytes(content)
    path.chmod(0o644)
    keep_self_signed(tmp_path, NAMES, ADDRESSES, NOW)
    Certificate(path, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_where_it_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot write") as refused:
        keep_self_signed(tmp_path / "file", NAMES, ADDRESSES, NOW)
    assert "XDG_STATE_HOME" in (refused.value.hint or "")


def test_names_and_addresses_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Laptop.lan")
    assert own_names() == ["localhost", "laptop.lan", "laptop.local"]
    assert own_names(["0.0.0.0", "192.168.1.7", "::", "", "Voice.Example.com"])[3:] == ["voice.example.com"]
    for odd in ("", "my laptop", "läptop", "a..b", "x" * 70):
        monkeypatch.setattr(socket, "gethostname", lambda odd=odd: odd)
        assert "localhost" in own_names()
        assert not {odd, f"{odd}.local"} & set(own_names())
    found = own_addresses(["0.0.0.0", "203.0.113.9", "", "voice.example.com"])
    assert {ip_address("127.0.0.1"), ip_address("::1"), ip_address("203.0.113.9")} <= set(found)
    assert not [address for address in found if address.is_unspecified or address.is_link_local]
