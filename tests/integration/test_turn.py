"""A real coturn, started by the product with its own template: whom it lets in, where to it relays, what it keeps."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aioice import stun

from lab.network.coturn import Relay, allocated, free_port, own_address, running_relay, udp_echo
from lab.waiting import until
from rtc_server.system.hardware import routed_addresses
from rtc_server.turn.ice_servers import make_credentials
from tests.conftest import need_commands, running_server
from tests.support.orphans import alive
from tests.support.server_process import ROOT

pytestmark = pytest.mark.slow

TRANSPORTS = ("udp", "tcp", "tls")


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    need_commands("turnserver")
    with running_relay(tmp_path_factory.mktemp("relay"), tls=True) as running:
        yield running


def refusal(error: stun.TransactionFailed) -> int:
    return int(error.response.attributes["ERROR-CODE"][0])


def rtc_server(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RTC_SERVER_")}
    return subprocess.run(
        [sys.executable, "-m", "rtc_server", *arguments],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_media_server_is_reached(relay: Relay, transport: str) -> None:
    """By UDP, TCP and TLS, though its address is one that is denied to others."""
    mine = relay.credentials()
    async with (
        udp_echo(own_address()) as peer,
        allocated(relay.url(transport), mine.username, mine.password, relay.certificate) as allocation,
    ):
        await allocation.send(b"hello", peer)
        assert await allocation.receive() == (b"hello", peer)


async def test_what_it_tells_to_start_the_server_with_works(relay: Relay) -> None:
    """The server's own credentials open the relay; so does what ``/api/config`` has for the page."""
    async with running_server("--model", "echo", *relay.options) as server, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{server.port}/api"
        async with http.get(f"{url}/ice-servers") as response:
            assert response.headers["Cache-Control"] == "no-store"
            body = await response.json()
        async with http.get(f"{url}/config") as response:
            config = await response.json()
    assert body["expires_in_s"] == 3600
    assert config["auth"] == "none"
    assert config["limits"].items() >= {"resume_grace_s": 30, "max_session_s": 14_400}.items()
    for (told,) in (body["ice_servers"], config["ice_servers"]):
        tls = [url for url in told["urls"] if url.startswith("turns:")]
        assert told["urls"] == [relay.url("udp").partition("?")[0], relay.url("tcp"), *tls]
        for url in told["urls"][:2]:
            async with allocated(url, told["username"], told["credential"]) as allocation:
                await allocation.permit(own_address())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_who_is_not_let_in(relay: Relay, transport: str) -> None:
    """Expired, wrong, made up, and no credentials."""
    # Not by a moment: coturn's own clock moves in steps, and later where the machine has other things to do.
    expired, good = relay.credentials(valid_s=-60), relay.credentials()
    wrong = make_credentials("another secret", "somebody", good.expires_at)
    for username, password in (
        (expired.username, expired.password),
        (wrong.username, wrong.password),
        (f"{good.expires_at + 1}:somebody", good.password),
        ("somebody", good.password),
        (None, None),
    ):
        with pytest.raises(stun.TransactionFailed) as refused:
            async with allocated(relay.url(transport), username, password):
                pass
        assert refusal(refused.value) == 401, username


async def test_a_call_outlives_its_credentials(relay: Relay) -> None:
    """They open the door, and are not asked for again: a call may be longer than they are valid."""
    mine = relay.credentials(valid_s=5)
    async with udp_echo(own_address()) as peer, allocated(relay.url("udp"), mine.username, mine.password) as allocation:
        await until(lambda: time.time() > mine.expires_at + 1, "the end of the credentials")
        await allocation.refresh()
        await allocation.send(b"still here", peer)
        assert (await allocation.receive())[0] == b"still here"


async def test_what_is_not_the_internet_is_not_reached(relay: Relay) -> None:
    """403, a neighbour of the media server included; the internet is allowed, for the server may be there."""
    neighbour = str(ipaddress.ip_address(own_address()) + 1)
    denied = ["0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255"]
    denied += ["169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.168.0.1", "198.18.0.1"]
    denied += [
        "168.63.129.16",
        "161.26.0.7",
        "203.0.113.9",
        "224.0.0.251",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ]
    if not ipaddress.ip_address(neighbour).is_global:
        denied.append(neighbour)
    mine = relay.credentials()
    async with allocated(relay.url("udp"), mine.username, mine.password) as allocation:
        for host in denied:
            with pytest.raises(stun.TransactionFailed) as refused:
                await allocation.permit(host)
            assert refusal(refused.value) == 403, host
        for host in (own_address(), "9.9.9.9", "172.32.0.1", "100.128.0.1", "168.63.129.15", "168.63.129.17"):
            await allocation.permit(host)


async def test_the_same_by_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv4 addresses in IPv6 clothes lead nowhere either."""
    need_commands("turnserver")
    if not any(":" in address for address in routed_addresses()):
        pytest.skip("this machine has no IPv6")
    family = (0x0017, "REQUESTED-ADDRESS-FAMILY", stun.pack_unsigned, stun.unpack_unsigned)
    monkeypatch.setitem(stun.ATTRIBUTES_BY_NAME, family[1], family)
    monkeypatch.setitem(stun.ATTRIBUTES_BY_TYPE, family[0], family)
    original = stun.Message.__init__

    def asking_for_ipv6(self: stun.Message, message_method: stun.Method, *rest: Any, **fields: Any) -> None:
        original(self, message_method, *rest, **fields)
        if message_method == stun.Method.ALLOCATE:
            self.attributes["REQUESTED-ADDRESS-FAMILY"] = 0x0200_0000

    monkeypatch.setattr(stun.Message, "__init__", asking_for_ipv6)
    denied = ["::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:9.9.9.9", "64:ff9b::a00:1", "64:ff9b:1::1"]
    denied += ["::a00:100", "::7f00:0", "::100:0", "::ffff:0:7f00:1", "::ffff:0:a00:100", "1::", "0:1::", "64:ff9b::"]
    denied += ["100::", "1fff::1", "4000::", "5f00::1", "fd00:ec2::254", "2001:0:a00:100::"]
    denied += ["2001::1", "2001:db8::1", "2002:7f00:1::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::fb"]
    with running_relay(tmp_path, "--turn-listen", ",".join(routed_addresses())) as relay:
        mine = relay.credentials()
        async with allocated(relay.url("udp"), mine.username, mine.password) as allocation:
            assert ":" in allocation.relayed[0]
            for host in denied:
                with pytest.raises(stun.TransactionFailed) as refused:
                    await allocation.permit(host)
                assert refusal(refused.value) == 403, host
            for host in ("2620:fe::fe", routed_addresses()[-1]):
                await allocation.permit(host)


async def test_one_user_gets_so_much_and_no_more(tmp_path: Path) -> None:
    """Quotas count by the id after the colon: fresh credentials do not begin a fresh count."""
    need_commands("turnserver")
    with running_relay(tmp_path, "--turn-user-quota", "2") as relay:
        first, later, other = relay.credentials(), relay.credentials(valid_s=700), relay.credentials("another")
        url = relay.url("udp")
        async with allocated(url, first.username, first.password), allocated(url, later.username, later.password):
            with pytest.raises(stun.TransactionFailed) as refused:
                async with allocated(url, later.username, later.password):
                    pass
            assert refusal(refused.value) == 486
            async with allocated(url, other.username, other.password):
                pass


async def test_behind_nat_both_sides_find_the_server(tmp_path: Path) -> None:
    """Clients are given the outer address, and what they send to it goes to the inner one."""
    need_commands("turnserver")
    outer = "203.0.113.77"
    with running_relay(tmp_path, "--public-ip", f"{outer}/{own_address()}") as relay:
        mine = relay.credentials()
        async with (
            udp_echo(own_address()) as (inner, port),
            allocated(relay.url("udp"), mine.username, mine.password) as allocation,
        ):
            assert allocation.relayed[0] == outer
            await allocation.send(b"hello", (outer, port))
            data, source = await allocation.receive()
            assert (data, source[1]) == (b"hello", port)
            assert source[0] in (outer, inner)


async def test_the_secret_changes_without_a_break(relay: Relay, tmp_path: Path) -> None:
    """With two lines of it coturn takes either, as the template says; as a user without any rights, too."""
    config = tmp_path / "turnserver.conf"
    port = relay.port
    written = rtc_server(
        *("turn-config", "--output", str(config), "--turn-port", str(port), "--turn-listen", "127.0.0.1"),
        RTC_SERVER_TURN_SECRET="the-old-secret",
    )
    assert (written.returncode, written.stdout) == (0, ""), written.stderr
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    descriptor = os.memfd_create("turnserver.conf", 0)
    os.write(descriptor, config.read_bytes() + b"static-auth-secret=the-new-secret\n")
    nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    process = await asyncio.create_subprocess_exec(
        *("turnserver", "-c", f"/proc/self/fd/{descriptor}", "--pidfile="),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=[descriptor],
        **nobody,
    )
    os.close(descriptor)
    try:
        for secret in ("the-old-secret", "the-new-secret"):
            mine = make_credentials(secret, "somebody", int(time.time()) + 60)
            await _until_let_in(f"turn:127.0.0.1:{port}?transport=tcp", mine.username, mine.password)
    finally:
        process.terminate()
        await process.wait()


async def _until_let_in(url: str, username: str, password: str, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            async with allocated(url, username, password):
                return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "it does not listen"
            await asyncio.sleep(0.05)


def test_it_understands_all_of_its_configuration(relay: Relay) -> None:
    """Nothing in it is unknown to coturn, and every range has arrived."""
    assert not re.findall(r"(?i).*(?:bad configuration|unknown|wrong|cannot (?:open|load|bind|start)).*", relay.log)
    lines = (ROOT / "turn" / "turnserver.conf").read_text().splitlines()
    denied = {line.partition("=")[2] for line in lines if line.startswith("denied-peer-ip=")}
    assert set(re.findall(r"Black listing: (\S+)", relay.log)) == denied
    assert set(re.findall(r"White listing: (\S+)", relay.log)) == set(routed_addresses())


def test_nobody_else_sees_the_secret(relay: Relay) -> None:
    """Not in the list of processes, not in the log, and in one file, which its owner alone may read."""
    command = Path(f"/proc/{relay.coturn.pid}/cmdline").read_bytes().decode().split("\0")
    assert Path(command[0]).name == "turnserver"
    assert relay.secret not in " ".join(command)
    assert relay.secret not in relay.log
    holders = [path for path in relay.directory.rglob("*") if path.is_file() and relay.secret in path.read_text()]
    assert [path.name for path in holders if path.name != "shared-secret"] == [".secret"]
    assert stat.S_IMODE((relay.directory / "turn" / ".secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_it_ends_with_the_command_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    """A terminal that is closed sends SIGHUP, which coturn by itself takes for a wish to have a new log file."""
    need_commands("turnserver")
    with running_relay(tmp_path) as relay:
        coturn = relay.coturn
        relay.process.send_signal(number)
        await until(lambda: relay.process.poll() is not None, "the command's end")
        await until(lambda: not alive([coturn]), "the relay's end")
        assert relay.process.returncode == (-9 if number is signal.SIGKILL else 0)


async def test_a_second_one_does_not_start_beside_it(relay: Relay) -> None:
    for port, option in ((relay.port, "--turn-port"), (relay.tls_port, "--turn-tls-port")):
        others = {"--turn-port": str(free_port()), "--turn-tls-port": str(free_port()), option: str(port)}
        certificate = ("--turn-cert", str(relay.certificate), "--turn-key", str(relay.directory / "relay-key.pem"))
        second = rtc_server("turn", *itertools.chain(*others.items()), *certificate)
        assert second.returncode == 1
        assert f"error: Something listens on port {port} already, most likely another relay." in second.stderr
        assert "--turn-port" in second.stderr
        assert not second.stdout
    assert not relay.process.poll()


async def test_credentials_for_a_person_who_looks_for_the_fault(relay: Relay) -> None:
    """What ``rtc-server turn-credentials`` prints is let in."""
    printed = rtc_server("turn-credentials", "--user", "me", *relay.server_options("udp", "tcp"))
    assert printed.returncode == 0, printed.stderr
    fields = [line.split(maxsplit=1) for line in printed.stdout.splitlines()]
    values = {name: [value for _, value in group] for name, group in itertools.groupby(fields, lambda field: field[0])}
    assert values["url"] == [relay.url("udp"), relay.url("tcp")]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", values["expires"][0])
    for url in values["url"]:
        async with allocated(url, values["username"][0], values["credential"][0]):
            pass


def test_without_a_relay_there_are_no_credentials_to_print() -> None:
    printed = rtc_server("turn-credentials")
    assert (printed.returncode, printed.stdout) == (1, "")
    assert "hint: --turn-urls" in printed.stderr
