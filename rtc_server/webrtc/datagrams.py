"""Filters the datagrams of a media socket by sender and kind. Pure; time is an argument, in monotonic seconds.

A media socket is open to the world. What a stranger sends to it must cost no more than its datagram: so all that is
taken from one is a STUN check, which has to be signed. The rest is taken from sources that the peer has shown to be
its own.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Container
from typing import Final, TypeVar

from rtc_server.system.rate_limit import TokenBucket

Source = tuple[str, int]
"""Host and port."""

MAX_DATAGRAM_BYTES: Final = 1500
"""What Ethernet carries; libsrtp's binding takes no more."""
MAX_SOURCES: Final = 16
"""Of a peer. One has as many as it has ways here; behind a NAT that changes its mind, one more each time."""
MAX_HELD: Final = 8
"""Datagrams of a source whose address is not proven yet: the flight that begins a DTLS handshake is one to four."""
DATAGRAMS_PER_S: Final = 1000
DATAGRAM_BURST: Final = 1000
"""From a peer, all of its sources together. Audio is 50 a second, 400 in the shortest packets that Opus knows."""
CHECKS_PER_S: Final = 100
CHECK_BURST: Final = 200
"""STUN requests that are looked into; each costs a signature. An agent that checks all its pairs sends one every 20 ms
(RFC 8445, section 14)."""

_HEADER: Final = struct.Struct("!HHL12s")
_COOKIE: Final = 0x2112A442
_CLASS: Final = 0x0110
_REQUEST: Final = 0x0000
_INDICATION: Final = 0x0010
_LEAST_RECORD_BYTES: Final = 13
_LEAST_PACKET_BYTES: Final = 12


class Kind(enum.Enum):
    STUN = enum.auto()
    DTLS = enum.auto()
    MEDIA = enum.auto()
    """SRTP or SRTCP."""


def kind_of(datagram: bytes) -> Kind | None:
    """Classify a datagram by its first byte (RFC 7983, section 7) and its length; None: it is not taken."""
    size = len(datagram)
    if not _LEAST_PACKET_BYTES <= size <= MAX_DATAGRAM_BYTES:
        return None
    first = datagram[0]
    if 128 <= first <= 191:  # noqa: PLR2004 - RFC 7983
        return Kind.MEDIA
    if 20 <= first <= 63:  # noqa: PLR2004 - RFC 7983
        return Kind.DTLS if size >= _LEAST_RECORD_BYTES else None
    return Kind.STUN if first <= 3 else None  # noqa: PLR2004 - RFC 7983


class Gate:
    """The sources of one connection, and what is taken from them.

    A source whose check was signed is *checked*. That it can be reached, and that no recorded check is played back
    from it, is proven when it has answered a check of ours, which only the peer can: then it is *proven*. A peer may
    send before its answer is here, so what comes from a checked source is held until then.
    """

    def __init__(self, local_username: str, now: float) -> None:
        # RFC 8445, section 7.2.2: the name of a request is ours, a colon and the sender's.
        self._name = local_username.encode() + b":"
        self._proven: dict[Source, None] = {}
        self._held: dict[Source, list[bytes]] = {}
        self._datagrams = TokenBucket(DATAGRAMS_PER_S, DATAGRAM_BURST, now)
        self._checks = TokenBucket(CHECKS_PER_S, CHECK_BURST, now)
        self._strange_checks = TokenBucket(CHECKS_PER_S, CHECK_BURST, now)

    def check(self, source: Source) -> None:
        """A request from there was signed by the peer."""
        if source in self._proven:
            _touch(self._proven, source, None)
        else:
            _touch(self._held, source, self._held.get(source, []))

    def prove(self, source: Source) -> list[bytes]:
        """A request of ours was answered from there, signed by the peer. Returns what it has sent before."""
        _touch(self._proven, source, None)
        return self._held.pop(source, [])

    def takes_stun(self, datagram: bytes, source: Source, asked: Container[bytes], now: float) -> bool:
        """Whether to read a STUN message: a request that names this connection, or an answer to what was asked.
        ``asked``: the transactions of ours that are open."""
        if len(datagram) < _HEADER.size:
            return False
        kind, length, cookie, transaction = _HEADER.unpack_from(datagram)
        if cookie != _COOKIE or kind >> 14 or _HEADER.size + length != len(datagram):
            return False
        if kind & _CLASS == _INDICATION:
            return False
        if kind & _CLASS != _REQUEST:
            return transaction in asked
        if self._name not in datagram:
            return False
        known = source in self._proven or source in self._held
        return (self._checks if known else self._strange_checks).allow(now)

    def is_proven(self, source: Source) -> bool:
        return source in self._proven

    def has_room(self, now: float) -> bool:
        """Whether one more datagram of a proven source is taken now; if so, it is counted."""
        return self._datagrams.allow(now)

    def hold(self, datagram: bytes, source: Source) -> bool:
        """Keep it until the source is proven; beyond a few, it is dropped. False: the source is not even checked."""
        held = self._held.get(source)
        if held is None:
            return False
        if len(held) < MAX_HELD:
            held.append(datagram)
        return True


_T = TypeVar("_T")


def _touch(sources: dict[Source, _T], source: Source, value: _T) -> None:
    """Make it the newest; beyond the limit, the oldest is forgotten."""
    sources.pop(source, None)
    sources[source] = value
    if len(sources) > MAX_SOURCES:
        del sources[next(iter(sources))]
