"""Attacks on a live connection, in which each input is a program.

Knows no fuzzer, so that tests can put in a few of both.
"""

from __future__ import annotations

import struct
from typing import Any

from aioice import stun
from google_crc32c import value as crc32c

from lab.network.wired import STRANGER, End, Wired


class Program:
    """Bytes, read as numbers; zeros for ever after the last."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.bytes(size).ljust(size, b"\0"), "little")

    def bytes(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken


def signed_check(end: End, attributes: bytes, kind: int = 1) -> bytes:
    """A STUN message with any attributes that is signed as ``end``'s peer would."""
    name = f"{end.agent.local_username}:{end.agent.remote_username}".encode()
    username = struct.pack("!HH", 6, len(name)) + name + bytes(-len(name) % 4)
    body = username + attributes[: len(attributes) // 4 * 4]
    message = struct.pack("!HHL", kind, len(body), stun.COOKIE) + bytes(12) + body
    digest = stun.message_integrity(message, end.agent.local_password.encode())
    message = stun.set_body_length(message + struct.pack("!HH", 8, 20) + digest, len(body) + 24)
    mark = struct.pack("!HHL", 0x8028, 4, stun.message_fingerprint(message))
    return stun.set_body_length(message + mark, len(body) + 32)


async def attack_with_datagrams(program: Program, wired: Wired) -> None:
    """Each action is a byte: whose port (1 bit), from whom (2), which recorded datagram (rest); and another: what is
    done with it, with more bytes behind."""
    for _ in range(60):
        if not program.left:
            break
        action, manner = program.number(), program.number()
        one, other = list(wired.ends())[action & 1]
        source = (STRANGER, other.pair.remote_addr, (STRANGER[0], 1024 + manner), ("::1", 5))[action >> 1 & 3]
        recorded = one.heard[(action >> 3) % len(one.heard)]
        at = program.number(2) % max(1, len(recorded))
        match manner & 7:
            case 0:
                datagram = recorded
            case 1:
                datagram = recorded[:at]
            case 2:
                datagram = recorded[:at] + bytes([program.number()]) + recorded[at + 1 :]
            case 3:
                datagram = recorded + bytes(at)
            case 4:
                datagram = program.bytes(program.number())
            case 5:
                datagram = recorded[: at % 32] + program.bytes(program.number())
            case 6:
                datagram = signed_check(other, program.bytes(program.number() & 127), (1, 0x101, 0x111, 0x11)[at & 3])
            case _:
                datagram = recorded[:2] + bytes([200]) * at
        other.put(datagram, source)
        if manner & 128:
            await wired.settle()
    await wired.settle()


async def attack_with_sctp(program: Program, wired: Wired) -> None:
    """Packets whose checksum is right, and their tag mostly: a byte for each, then its chunks, each a type, flags, a
    length that may lie, and a body, whose first number is near the next that is due if the highest bit says so."""
    client: Any = wired.client.pc.sctp
    for _ in range(30):
        if not program.left:
            break
        manner = program.number()
        one, other = wired.client, wired.server
        target: Any = other.pc.sctp
        chunks = b"".join(_chunk(program, target) for _ in range(1 + (manner & 7)))
        tag = 0 if manner & 8 else client._remote_verification_tag ^ (manner & 16 > 0)
        header = struct.pack("!HHL", 5000, 5000, tag)
        packet = header + struct.pack("<L", crc32c(header + bytes(4) + chunks)) + chunks
        other.refill()
        wired.send_record(one, other, packet[:1300])
        if manner & 128:
            await wired.settle()
    await wired.settle()


def _chunk(program: Program, target: Any) -> bytes:
    kind, flags, size = program.number(), program.number(), program.number()
    body = program.bytes(size & 127)
    if kind & 128 and kind < 192:  # data that is due soon, of few channels
        kind, due = 0, (target._last_received_tsn or 0) + 1 + (kind & 7)
        protocol = (50, 51, 53, 56)[flags >> 3 & 3]
        body = struct.pack("!LHHL", due % 2**32, flags & 3, flags >> 5, protocol) + body
    length = len(body) + 4 if size < 128 else program.number()
    return struct.pack("!BBH", kind, flags, length) + body + bytes(-len(body) % 4)
