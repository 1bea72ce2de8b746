"""A real coturn, started as ``make turn`` starts it, and a client for it that says what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import random
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from aioice import stun
from aioice.turn import TurnClientTcpProtocol, TurnClientUdpProtocol
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab.program import without_settings
from rtc_server.system.hardware import routed_addresses
from rtc_server.turn.ice_servers import Credentials, make_credentials, parse_uri

_ROOT: Final = Path(__file__).parents[2]
_START_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02
_RELAY_PORTS: Final = 60
_LISTENING: Final = {"tcp": "0A", "udp": "07"}

Address = tuple[str, int]


def own_address() -> str:
    """This machine's own IPv4 address, which is not loopback: TURN servers do not relay there."""
    found = [address for address in routed_addresses() if ":" not in address]
    assert found, "this machine has no network but loopback"
    return found[0]


@dataclass(frozen=True, slots=True)
class Relay:
    """A running coturn. ``options``: what it told to start the server with."""

    host: str
    port: int
    tls_port: int
    secret: str
    options: list[str]
    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def log(self) -> str:
        return (self.directory / "relay.log").read_text(errors="replace")

    @property
    def coturn(self) -> psutil.Process:
        """The relay itself, which the command looks after."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    @property
    def certificate(self) -> Path:
        return self.directory / "relay-cert.pem"

    def url(self, transport: str) -> str:
        """``transport``: udp, tcp or tls."""
        if transport == "tls":
            return f"turns:{self.host}:{self.tls_port}?transport=tcp"
        return f"turn:{self.host}:{self.port}?transport={transport}"

    def server_options(self, *transports: str) -> list[str]:
        """For a server that names this relay to its clients, by these transports alone."""
        secret_file = self.directory / "shared-secret"
        secret_file.write_text(self.secret)
        urls = ",".join(self.url(transport) for transport in transports)
        return ["--turn-urls", urls, "--turn-secret-file", str(secret_file)]

    def credentials(self, user: str = "somebody", valid_s: int = 600) -> Credentials:
        return make_credentials(self.secret, user, int(time.time()) + valid_s)


def _as_from_a_terminal() -> None:
    """A run of the tests in the background of a shell ignores these signals, and so would what it starts."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def running_relay(
    directory: Path, *options: str, host: str = "", tls: bool = False, within: Sequence[str] = ()
) -> Iterator[Relay]:
    """``rtc-server turn`` in ``directory``, listening. ``within``: a command that runs another one elsewhere."""
    host = host or own_address()
    port, tls_port = free_port(), free_port()
    first = free_block(_RELAY_PORTS)
    arguments = ["--turn-listen", host, "--turn-port", str(port), "--turn-tls-port", str(tls_port)]
    arguments += ["--turn-relay-ports", f"{first}-{first + _RELAY_PORTS - 1}"]
    if tls:
        make_certificate(directory, host)
        arguments += ["--turn-cert", str(directory / "relay-cert.pem"), "--turn-key", str(directory / "relay-key.pem")]
    environment = without_settings()
    with (directory / "relay.log").open("wb") as log:
        process = subprocess.Popen(
            [*within, sys.executable, "-m", "rtc_server", "turn", *arguments, *options],
            cwd=directory,
            env={**environment, "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_as_from_a_terminal,  # noqa: PLW1509 - it sets two signals and no more
        )
    try:
        wait_until_listening(process, port, ("udp", "tcp"), directory / "relay.log")
        told = re.search(
            r"^ +(.*rtc.server) serve (--turn-urls .*)$", (directory / "relay.log").read_text(), re.MULTILINE
        )
        assert told is not None
        secret = (directory / "turn" / ".secret").read_text().strip()
        yield Relay(host, port, tls_port, secret, shlex.split(told[2]), process, directory)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_listening(process: subprocess.Popen[bytes], port: int, protocols: Sequence[str], log: Path) -> None:
    """By the tables of the process's own network, which may be another than ours."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not all(_listens(process.pid, protocol, port) for protocol in protocols):
        assert process.poll() is None, f"it ended:\n{log.read_text(errors='replace')}"
        assert time.monotonic() < deadline, f"it does not listen:\n{log.read_text(errors='replace')}"
        time.sleep(_POLL_S)


def _listens(pid: int, protocol: str, port: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == _LISTENING[protocol] and int(local.rpartition(":")[2], 16) == port:
                return True
    return False


def free_port() -> int:
    """Free for UDP and for TCP on all addresses, outside the range that the system hands out by itself."""
    return free_block(1)


def free_block(size: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = random.randrange(20_000, 32_000 - size)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + size):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    stack.enter_context(socket.socket(socket.AF_INET, kind)).bind(("", port))
            return first


def make_certificate(directory: Path, host: str) -> None:
    """``relay-cert.pem`` and ``relay-key.pem``, self-signed for an address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "relay-cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "relay-key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


class _Inbox(asyncio.DatagramProtocol):
    """What comes in over the relay, and from where."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.received.put_nowait((data, addr))


class Allocation:
    """One allocation of a TURN client: ask for permission, send, receive. Raises ``stun.TransactionFailed``."""

    def __init__(self, protocol: TurnClientUdpProtocol | TurnClientTcpProtocol, relayed: Address) -> None:
        self.relayed = relayed
        self._protocol = protocol
        self._inbox = _Inbox()
        protocol.receiver = self._inbox

    async def permit(self, host: str) -> None:
        """RFC 8656, section 9."""
        request = stun.Message(message_method=stun.Method.CREATE_PERMISSION, message_class=stun.Class.REQUEST)
        request.attributes["XOR-PEER-ADDRESS"] = (host, 9)
        await self._protocol.request_with_retry(request)

    async def refresh(self) -> None:
        """RFC 8656, section 8."""
        request = stun.Message(message_method=stun.Method.REFRESH, message_class=stun.Class.REQUEST)
        request.attributes["LIFETIME"] = 600
        await self._protocol.request_with_retry(request)

    async def send(self, data: bytes, to: Address) -> None:
        await self._protocol.send_data(data, to)

    async def receive(self, timeout_s: float = 10.0) -> tuple[bytes, Address]:
        async with asyncio.timeout(timeout_s):
            return await self._inbox.received.get()


_MISMATCH: Final = 437
_PORTS: Final = 5
"""Ports of the client's own that are tried."""


@contextlib.asynccontextmanager
async def allocated(
    url: str, username: str | None, password: str | None, trust: Path | None = None
) -> AsyncIterator[Allocation]:
    """An allocation at the server that a URL names. ``trust``: the certificate to believe, for turns:.

    Raises ``stun.TransactionFailed``, whose response has the error's code.
    """
    for tries_left in reversed(range(_PORTS)):
        protocol = await _turn_client(url, username, password, trust)
        try:
            try:
                relayed = await protocol.connect()
            except stun.TransactionFailed as error:
                # The port was another allocation's a moment ago, and coturn keeps that for a second after its end: the
                # client tries another port (RFC 8656, section 7.4).
                if error.response.error_code == _MISMATCH and tries_left:
                    continue
                raise
            yield Allocation(protocol, relayed)
            await protocol.delete()
            return
        finally:
            if protocol.refresh_task is not None:
                protocol.refresh_task.cancel()
            protocol.transport.close()


async def _turn_client(
    url: str, username: str | None, password: str | None, trust: Path | None
) -> TurnClientUdpProtocol | TurnClientTcpProtocol:
    uri = parse_uri(url)
    loop = asyncio.get_running_loop()
    arguments = ((uri.host, uri.port), username, password, 600, 500)
    if uri.transport == "udp":
        _, datagrams = await loop.create_datagram_endpoint(
            lambda: TurnClientUdpProtocol(*arguments), remote_addr=(uri.host, uri.port)
        )
        return datagrams
    context = ssl.create_default_context(cafile=trust) if uri.scheme == "turns" else None
    _, stream = await loop.create_connection(lambda: TurnClientTcpProtocol(*arguments), uri.host, uri.port, ssl=context)
    return stream


@contextlib.asynccontextmanager
async def udp_echo(host: str) -> AsyncIterator[Address]:
    """A peer that sends back what it gets."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self._transport = transport

        def datagram_received(self, data: bytes, addr: Address) -> None:
            self._transport.sendto(data, addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=(host, 0))
    try:
        yield transport.get_extra_info("sockname")[:2]
    finally:
        transport.close()
