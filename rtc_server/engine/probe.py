"""Asks an engine on another machine how it is, as a media node that leaves at once: for ``rtc-server check``, and, as
``python -m rtc_server.engine.probe HOST:PORT KEY-FILE``, for the health checks of Kubernetes and Docker.

Loads neither a model nor the media plane: a health check runs every few seconds.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from rtc_server.engine.cluster_key import ClusterKey, KeyPair
from rtc_server.engine.messages import (
    PROTOCOL,
    FromEngine,
    Goodbye,
    Hello,
    OtherVersion,
    Ping,
    Pong,
    Ready,
    decode_from_engine,
    encode,
)
from rtc_server.engine.model import PagesUse
from rtc_server.engine.sockets import HANDSHAKE_FAILED, PARTING_MS, prepare_dealer
from rtc_server.errors import NoEngine, StartupError

WAIT_S: Final = 5.0
"""For each of the connection and the engine's answers, which come between two steps."""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class EngineReport:
    """``used``: how many of the slots media nodes have."""

    ready: Ready
    used: int
    pages: PagesUse | None = None

    def __str__(self) -> str:
        info = self.ready.info
        pace = f", a step takes {self.ready.step_s * 1000:.0f} ms" if self.ready.step_s else ""
        pages = f", {self.pages.free:,} of {self.pages.total:,} pages free" if self.pages else ""
        return f"{info.name} on {info.device}, {info.slots} slots, {self.used} of them in use{pages}{pace}"


def ask(address: str, key: ClusterKey, wait_s: float = WAIT_S) -> EngineReport:
    """Greet the engine at ``HOST:PORT``, count its slots, and leave. Blocks for up to three times ``wait_s``. Raises
    NoEngine, which says what is wrong."""
    with connected(address, key.engine.public, key.node, wait_s, "rtc-server engine --engine-listen") as link:
        ready = answer(link, encode(Hello(PROTOCOL)), lambda raw: _ready(address, decode_from_engine(raw)), wait_s)
        pong = None if ready is None else answer(link, encode(Ping()), _pong, wait_s)
        link.send(encode(Goodbye()))
        if ready is None or pong is None:
            raise NoEngine(
                f"The engine at {address} does not answer.",
                "Its model may be loading yet: its own log says so, and when that has ended.",
            )
        return EngineReport(ready, pong.elsewhere, pong.pages)


@contextlib.contextmanager
def connected(address: str, server: bytes, own: KeyPair, wait_s: float, starts_it: str) -> Iterator[zmq.Socket[bytes]]:
    """A socket to what has the key ``server`` and listens at ``address``. ``starts_it``: the command, up to where it is
    to listen. Raises NoEngine, which says why there is no connection."""
    _require_listener(address, wait_s, starts_it)
    with zmq.Context() as context, context.socket(zmq.DEALER) as link:
        prepare_dealer(link, server, own)
        link.linger = PARTING_MS
        with link.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | HANDSHAKE_FAILED) as handshakes:
            link.connect(f"tcp://{address}")
            _require_handshake(address, handshakes, wait_s)
            yield link


def answer(
    link: zmq.Socket[bytes], question: bytes, read: Callable[[bytes], _Answer | None], wait_s: float
) -> _Answer | None:
    """The first message in which ``read`` sees the answer; None if none comes."""
    link.send(question)
    until_s = time.monotonic() + wait_s
    while link.poll(max(0, int((until_s - time.monotonic()) * 1000))):
        with contextlib.suppress(msgspec.DecodeError):
            found = read(link.recv())
            if found is not None:
                return found
    return None


def _require_listener(address: str, wait_s: float, starts_it: str) -> None:
    """Raise NoEngine, in the system's words, where there is nothing to connect to."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), wait_s).close()
    except TimeoutError:
        raise NoEngine(
            f"Nothing at {address} answers.", "Is the address right, and does a firewall let this machine through?"
        ) from None
    except OSError as error:
        raise NoEngine(
            f"{address} cannot be reached: {error.strerror}.",
            f"Start it there: {starts_it} 0.0.0.0:{port} --cluster-key FILE",
        ) from None


def _require_handshake(address: str, handshakes: zmq.Socket[Any], wait_s: float) -> None:
    if not handshakes.poll(int(wait_s * 1000)):
        raise NoEngine(
            f"What listens at {address} says nothing: it is none of this cluster's.", "Is it the right port?"
        )
    event: Any = recv_monitor_message(handshakes)
    if event["event"] & HANDSHAKE_FAILED:
        raise NoEngine(
            f"What listens at {address} ends the handshake: it has another cluster key, or is something else.",
            "Give it and this machine the same file as --cluster-key.",
        )


def _ready(address: str, message: FromEngine) -> Ready | None:
    if isinstance(message, OtherVersion):
        raise NoEngine(
            f"The engine at {address} speaks version {message.protocol} of the protocol, this machine {PROTOCOL}.",
            "Install the same release of rtc-server on both.",
        )
    return message if isinstance(message, Ready) else None


def _pong(raw: bytes) -> Pong | None:
    message = decode_from_engine(raw)
    return message if isinstance(message, Pong) else None


def main(arguments: Sequence[str], ask: Callable[[str, ClusterKey], object] = ask) -> int:
    """Exit status: 0 for one that can be used, 1 for one that cannot, 2 for a wrong command line."""
    try:
        address, key_file = arguments
    except ValueError:
        print("usage: python -m rtc_server.engine.probe HOST:PORT KEY-FILE", file=sys.stderr)
        return 2
    try:
        report = ask(address, ClusterKey.read(Path(key_file)))
    except StartupError as error:
        print(error.message, file=sys.stderr)
        return 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
