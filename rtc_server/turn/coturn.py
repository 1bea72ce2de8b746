"""Runs coturn beside the server: fills in ``turn/turnserver.conf``, keeps its secret from other eyes, starts it.

The only module that knows coturn. What clients are told is :mod:`rtc_server.turn.ice_servers`'s.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rtc_server import bundled
from rtc_server.access.addresses import is_address
from rtc_server.config import RelaySettings, Settings
from rtc_server.errors import ConfigError
from rtc_server.system.child_process import end_with_parent
from rtc_server.system.hardware import routed_addresses
from rtc_server.turn.ice_servers import read_secret
from rtc_server.usage.invocation import in_checkout

DEFAULT_SECRET_FILE: Final = Path("turn/.secret")
_HIDDEN: Final = "(hidden: --output writes it)"
_PLACEHOLDER: Final = re.compile(r"\$\{(\w+)\}")
# Coturn's parser of this file knows no quoting to rely on.
_SECRET: Final = re.compile(r"""[^\s"'#\\\x00-\x20\x7f-\U0010ffff]{8,}""")
_PATH: Final = re.compile(r"[^\s\"'#\\]+")


def template_file() -> Path:
    return bundled.beside_or_inside("turn/turnserver.conf", "turnserver.conf")


def render(settings: Settings, relay: RelaySettings, secret: str) -> str:
    """The configuration file. Raises ConfigError."""
    if not _SECRET.fullmatch(secret) and secret != _HIDDEN:
        raise ConfigError(
            "The TURN secret is not one that coturn can read from its file.",
            hint="Eight or more ASCII characters without spaces, quotes, # and \\. Make one: openssl rand -hex 32",
        )
    low, high = _port_range(relay.turn_relay_ports)
    public = _external_ip(settings.public_ip)
    values: dict[str, Sequence[object]] = {
        "listening_ip": [_address("--turn-listen", text) for text in relay.turn_listen],
        "listening_port": [relay.turn_port],
        "tls_listening_port": [relay.turn_tls_port] if relay.turn_cert else [],
        "cert": _path("--turn-cert", relay.turn_cert),
        "pkey": _path("--turn-key", relay.turn_key),
        "no_tls": [] if relay.turn_cert else ["no-tls"],
        "min_port": [low],
        "max_port": [high],
        "relay_ip": [_address("--turn-relay-ip", relay.turn_relay_ip)] if relay.turn_relay_ip else [],
        "external_ip": ["/".join(public)] if public else [],
        "secret": [secret],
        "realm": [relay.turn_realm],
        "user_quota": [relay.turn_user_quota],
        "total_quota": [high - low + 1],
        "peer": _peers(settings, relay, public),
    }
    lines = template_file().read_text(encoding="utf-8").splitlines()
    return "\n".join(filled for line in lines for filled in _fill(line, values)) + "\n"


def render_hidden(settings: Settings, relay: RelaySettings) -> str:
    """The same without the secret: to be looked at."""
    return render(settings, relay, _HIDDEN)


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, from its first byte on. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            # The mode given to open() is for files that were not there.
            os.fchmod(file.fileno(), stat.S_IRUSR | stat.S_IWUSR)
            file.write(text)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}.") from error


def secret_or_new(settings: Settings) -> tuple[str, list[str]]:
    """The relay's secret, and the option, with its value, that gives the server the same one. Where none is set there
    is one in ``turn/.secret``; it is made if need be. Raises ConfigError."""
    secret = read_secret(settings)
    if secret:
        return secret, ["--turn-secret-file", settings.turn_secret_file] if settings.turn_secret_file else []
    if not DEFAULT_SECRET_FILE.exists():
        write_private(DEFAULT_SECRET_FILE, secrets.token_hex(32) + "\n")
    try:
        secret = DEFAULT_SECRET_FILE.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{DEFAULT_SECRET_FILE} cannot be read: {error.strerror}.") from error
    # Another terminal is in another directory, but for the one that has a Makefile.
    return secret, ["--turn-secret-file", str(DEFAULT_SECRET_FILE if in_checkout() else DEFAULT_SECRET_FILE.absolute())]


def urls(settings: Settings, relay: RelaySettings) -> list[str]:
    """Under which clients find the relay, as far as this machine can tell."""
    public = _external_ip(settings.public_ip)
    candidates = [*(public[:1] if public else ()), *relay.turn_listen, *routed_addresses(), "127.0.0.1"]
    host = f"[{candidates[0]}]" if ":" in candidates[0] else candidates[0]
    plain = f"turn:{host}:{relay.turn_port}"
    tls = [f"turns:HOST-OF-THE-CERTIFICATE:{relay.turn_tls_port}?transport=tcp"] if relay.turn_cert else []
    return [plain, f"{plain}?transport=tcp", *tls]


def require_free_ports(relay: RelaySettings) -> None:
    """Raises ConfigError where something listens already, most likely another relay: coturn itself would start beside
    it, and get every second packet."""
    ports = [relay.turn_port, *([relay.turn_tls_port] if relay.turn_cert else [])]
    for address in relay.turn_listen or ("0.0.0.0", "::"):  # noqa: S104 - bound to for a moment, not listened on
        for port in ports:
            if _is_taken(address, port):
                raise ConfigError(
                    f"Something listens on port {port} already, most likely another relay.",
                    hint="Stop that one, or choose another port: --turn-port (of TLS: --turn-tls-port).",
                )


def run(text: str) -> int:
    """Run coturn until it ends, or until a signal says to stop: a second one, and the end of this process, end it by
    force. Its exit status. Raises ConfigError where it cannot be started.

    The configuration goes by an open file without a name: neither the list of processes nor the disk shows it.
    """
    program = shutil.which("turnserver")
    if program is None:
        raise ConfigError("coturn is not installed.", hint="On Debian and Ubuntu: sudo apt-get install coturn")
    if not hasattr(os, "memfd_create"):
        raise ConfigError(
            "Starting coturn like this works on Linux only.",
            hint="rtc-server turn-config --output turnserver.conf, then turnserver -c turnserver.conf",
        )
    descriptor = os.memfd_create("turnserver.conf", 0)
    os.write(descriptor, text.encode())
    # An empty --pidfile: none is written, as in Debian's own unit.
    command = [program, "-c", f"/proc/self/fd/{descriptor}", "--pidfile="]
    # A program found by its name, and the one thread that there is: neither a shell nor a lock is in the way.
    process = subprocess.Popen(command, pass_fds=[descriptor], preexec_fn=end_with_parent)  # noqa: S603, PLW1509
    return _supervise(process)


def _supervise(process: subprocess.Popen[bytes]) -> int:
    """To coturn a SIGHUP, which a terminal sends when it is closed, is a wish for a new log file."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        if stopping:
            process.kill()
        else:
            process.terminate()
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    status = process.wait()
    return 0 if stopping else abs(status)


def _is_taken(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind) as probe:
                if kind is socket.SOCK_STREAM:  # connections of one that has ended are not in the way
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family is socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((address, port))
        except OSError as error:  # what else is wrong with an address, coturn says
            if error.errno == errno.EADDRINUSE:
                return True
    return False


def _fill(line: str, values: Mapping[str, Sequence[object]]) -> Iterator[str]:
    found = _PLACEHOLDER.search(line)
    if found is None or line.startswith("#"):
        yield line
        return
    for value in values[found[1]]:
        yield line.replace(found[0], str(value))


def _peers(settings: Settings, relay: RelaySettings, public: tuple[str, ...]) -> list[str]:
    """Whom to relay to besides the public internet. Both of a NAT's addresses: coturn turns the outer one, which
    clients ask for, into the inner one before it looks here."""
    if relay.turn_peers:
        return [_range("--turn-peers", text) for text in relay.turn_peers]
    named = [text for text in settings.interfaces if is_address(text)]
    outer = [settings.public_ip.partition("/")[0]] if settings.public_ip else []
    return list(dict.fromkeys([*outer, *public, *(named or routed_addresses())]))


def _external_ip(public_ip: str) -> tuple[str, ...]:
    """PUBLIC, PRIVATE; empty where there is no NAT. A PRIVATE that is not said is this machine's."""
    if not public_ip:
        return ()
    public, _, private = public_ip.partition("/")
    outer = _address("--public-ip", public)
    if private:
        return outer, _address("--public-ip", private)
    same_family = [own for own in routed_addresses() if (":" in own) == (":" in outer)]
    return (outer, same_family[0]) if same_family and same_family[0] != outer else ()


def _port_range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if found is None or not 1024 <= int(found[1]) <= int(found[2]) <= 65535:  # noqa: PLR2004
        raise ConfigError(f"--turn-relay-ports {text!r} is no range of ports.", hint="As 49160-49659.")
    return int(found[1]), int(found[2])


def _address(option: str, text: str) -> str:
    if not is_address(text):
        raise ConfigError(f"{option}: {text!r} is not an IP address.")
    return text


def _range(option: str, text: str) -> str:
    """An address, FIRST-LAST, or a network, which coturn itself does not take."""
    try:
        first, dash, last = text.partition("-")
        if dash:
            return f"{ipaddress.ip_address(first)}-{ipaddress.ip_address(last)}"
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} is neither an IP address nor a network.") from error
    return f"{network[0]}-{network[-1]}" if network.num_addresses > 1 else str(network[0])


def _path(option: str, text: str) -> list[str]:
    if not text:
        return []
    path = str(Path(text).absolute())
    if not _PATH.fullmatch(path):
        raise ConfigError(f"{option}: coturn cannot read a path with spaces, quotes, # or \\ from its file.")
    if not Path(path).is_file():
        raise ConfigError(f"{option}: there is no file {text}.")
    return [path]
