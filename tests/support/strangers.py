"""What strangers send to a media port."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Final

from aioice import stun

from rtc_server.webrtc.datagrams import Kind, kind_of

Address = tuple[str, int]

LONGEST: Final = 8000
"""More than any parser of a media stack takes."""


def records() -> Iterator[bytes]:
    """A DTLS record of each content type and epoch (RFC 6347, section 4.1), alerts of each kind."""
    for content in (20, 21, 22, 23, 24, 25, 26, 63):
        for epoch in (0, 1, 2):
            yield _record(content, epoch, bytes(32))
            yield _record(content, epoch, b"")
    for level in (1, 2):
        for description in (0, 10, 40, 47, 90):
            yield _record(21, 0, bytes([level, description]))
    yield _record(22, 0, bytes.fromhex("01000000000000000000000000"))
    yield _record(22, 0, bytes(40))[:20]


def _record(content: int, epoch: int, fragment: bytes) -> bytes:
    header = struct.pack("!BHH", content, 0xFEFD, epoch) + bytes(6)
    return header + struct.pack("!H", len(fragment)) + fragment


def checks(username: str) -> Iterator[bytes]:
    """STUN messages of all classes that nobody has signed, or not with the right key."""
    for kind in stun.Class:
        for name in ("", "a:b", username, username + ":x"):
            message = stun.Message(stun.Method.BINDING, kind)
            message.attributes |= {"USERNAME": name, "PRIORITY": 1, "USE-CANDIDATE": None, "ICE-CONTROLLING": 2**64 - 1}
            yield bytes(message)
            message.add_fingerprint()
            yield bytes(message)
            message.add_message_integrity(b"x" * 22)
            yield bytes(message)
    for attribute in ("00240000", "0024000100000000", "80290002", "00200001ff", "0006ffff", "000600020aff0000"):
        body = bytes.fromhex(attribute)
        yield struct.pack("!HHL", 1, len(body), 0x2112A442) + bytes(12) + body


def datagrams(heard: Iterable[bytes], username: str, seed: int = 0) -> list[bytes]:
    """All kinds; ``heard``: what a stranger on the way has recorded, of which it plays back each whole, cut off, and
    with a bit turned over. ``username``: of the STUN checks."""
    chance = random.Random(seed)
    made = [b"", b"\0", *(bytes([first]) for first in range(256)), *(bytes([first]) * 60 for first in range(256))]
    made += [bytes([first]) + bytes(size - 1) for first in (0, 22, 128, 144, 200) for size in (1500, 1501, LONGEST)]
    made += [*records(), *checks(username)]
    for datagram in heard:
        made += [datagram, datagram[: len(datagram) // 2], datagram[:-1], datagram + b"\0"]
        made.append(_turned(datagram, chance))
        if kind_of(datagram) is Kind.MEDIA:
            made += [datagram[:12] + bytes(20), datagram[:12], datagram[:1] + bytes([200]) + datagram[2:]]
    made += [chance.randbytes(chance.randrange(1, 200)) for _ in range(300)]
    chance.shuffle(made)
    return made


def _turned(datagram: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(datagram))
    return datagram[:at] + bytes([datagram[at] ^ 1 << chance.randrange(8)]) + datagram[at + 1 :]


class Spray(asyncio.DatagramProtocol):
    """A stranger's socket."""

    transport: asyncio.DatagramTransport
    answers = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.answers += 1

    async def send(self, made: Iterable[bytes], to: Address, at_once: int = 20) -> None:
        """So many at a time, so that the receiver gets to read them."""
        for number, datagram in enumerate(made):
            self.transport.sendto(datagram, to)
            if number % at_once == 0:
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def stranger(host: str) -> AsyncIterator[Spray]:
    transport, spray = await asyncio.get_running_loop().create_datagram_endpoint(Spray, local_addr=(host, 0))
    try:
        yield spray
    finally:
        transport.close()
