"""The sockets of ``--host`` and ``--port``: every address that is meant, one port, and a hint where that cannot be."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import aiohttp
import pytest

from rtc_server.cli import main as cli
from rtc_server.errors import ConfigError
from rtc_server.system import hardware
from rtc_server.web import listening
from tests.conftest import running_server

WITH_IPV6 = "::1" in hardware.addresses()
needs_ipv6 = pytest.mark.skipif(not WITH_IPV6, reason="needs ::1 (IPv6)")


@contextmanager
def opened(found: list[socket.socket]) -> Iterator[list[tuple[str, int]]]:
    """Address and port of each; closed at the end."""
    try:
        yield [each.getsockname()[:2] for each in found]
    finally:
        for each in found:
            each.close()


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("0.0.0.0", {"0.0.0.0"}),
        pytest.param("::1", {"::1"}, marks=needs_ipv6),
        pytest.param("::", {"::", "0.0.0.0"}, marks=needs_ipv6),
    ],
)
async def test_all_that_is_meant_on_one_port(host: str, addresses: set[str]) -> None:
    with opened(await listening.listen(host, 0)) as found:
        assert {address for address, _ in found} == addresses
        assert len({port for _, port in found}) == 1


async def test_a_name() -> None:
    with opened(await listening.listen("localhost", 0)) as found:
        assert {address for address, _ in found} <= {"127.0.0.1", "::1"}
        assert len({port for _, port in found}) == 1


@needs_ipv6
async def test_a_port_that_is_taken_for_one_family_alone_is_taken() -> None:
    """And none is left open that was free."""
    with closing(socket.create_server(("0.0.0.0", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}") as refused:
            await listening.listen("::", port)
        assert "--port" in (refused.value.hint or "")
        with closing(socket.create_server(("::", port), family=socket.AF_INET6)):
            pass


def without(monkeypatch: pytest.MonkeyPatch, address: str, number: int) -> None:
    """A machine on which nothing can be bound to ``address``."""
    bind = listening._bind

    def refuse(family: socket.AddressFamily, place: tuple[str, int], port: int) -> socket.socket:
        if place[0] == address:
            raise OSError(number, "it is not here")
        return bind(family, place, port)

    monkeypatch.setattr(listening, "_bind", refuse)


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
async def test_a_machine_without_ipv6_serves_what_it_has(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    without(monkeypatch, "::", number)
    with opened(await listening.listen("::", 0)) as found:
        assert [address for address, _ in found] == ["0.0.0.0"]
    assert "not all addresses" in caplog.text


@pytest.mark.parametrize(
    ("number", "port", "hint"),
    [
        (errno.EADDRINUSE, 8080, "--port"),
        (errno.EACCES, 80, "CAP_NET_BIND_SERVICE"),
        (errno.EAFNOSUPPORT, 0, "--host 0.0.0.0"),
        (errno.EADDRNOTAVAIL, 0, "none of this machine's addresses"),
        (errno.EINVAL, 0, "fe80::1%eth0"),
    ],
)
async def test_what_to_do_about_it(monkeypatch: pytest.MonkeyPatch, number: int, port: int, hint: str) -> None:
    without(monkeypatch, "127.0.0.1", number)
    with pytest.raises(ConfigError, match=r"^Cannot listen on 127\.0\.0\.1") as refused:
        await listening.listen("127.0.0.1", port)
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("host", "error", "hint"),
    [
        ("no-such-machine.invalid", "there is no such name|cannot be looked up", "127.0.0.1"),
        ("256.1.1.1", "there is no such name|cannot be looked up", "0.0.0.0"),
        (f"{'a' * 64}.example", "there is no such name", "127.0.0.1"),
        ("http://localhost:9000/", "neither an address nor a name", "--host localhost --port 9000"),
        ("https://voice.example", "neither an address nor a name", "--host voice.example"),
        ("localhost:9000", "neither an address nor a name", "--host localhost --port 9000"),
        ("[::1]", "neither an address nor a name", "--host ::1"),
        ("[::1]:9000", "neither an address nor a name", "--host ::1 --port 9000"),
        ("10.0.0.0/8", "neither an address nor a name", "not a network"),
        ("*", "neither an address nor a name", "0.0.0.0"),
        ("127.0.0.1,::1", "neither an address nor a name", "one address"),
    ],
)
async def test_what_is_no_host(host: str, error: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=error) as refused:
        await listening.listen(host, 0)
    assert hint in (refused.value.hint or "")


def test_a_host_that_is_not_here_is_told_before_who_may_come_in(capsys: pytest.CaptureFixture[str]) -> None:
    """A key for a door that cannot be there would be made in vain."""
    assert cli.main(["serve", "--model", "echo", "--host", "no-such-machine.invalid", "--port", "0"]) == 1
    shown = capsys.readouterr().err
    assert "error: --host no-such-machine.invalid" in shown
    assert "--auth" not in shown


@needs_ipv6
async def test_a_server_answers_in_both_families() -> None:
    async with (
        running_server("--model", "echo", "--host", "::", "--allow-anonymous") as server,
        aiohttp.ClientSession() as http,
    ):
        assert server.addresses == ("::", "0.0.0.0")
        for host in ("127.0.0.1", "[::1]"):
            async with http.get(f"http://{host}:{server.port}/healthz") as response:
                assert response.status == 200
