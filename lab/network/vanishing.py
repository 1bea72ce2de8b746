"""Peers that vanish: from one moment to the next nothing of theirs reaches the other end.

Knows aioice's and aiortc's private parts, for no peer does that by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiortc import RTCPeerConnection

from rtc_server.client import VoiceClient


class _BlackHole:
    """A datagram transport that swallows what is sent."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def sendto(self, data: bytes, addr: Any = None) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def vanish(client: VoiceClient, close_sockets: bool = False) -> Callable[[], None]:
    """From now on nothing of this client reaches the server: its battery is empty. What is returned mends it.

    With ``close_sockets`` its machine lives on and says that nobody listens on that port any more.
    """
    return blackhole(client.pc, close_sockets)


def blackhole(pc: RTCPeerConnection, close_sockets: bool = False) -> Callable[[], None]:
    """The same for a bare peer connection."""
    transports = {t.receiver.transport.transport for t in pc.getTransceivers()}
    if pc.sctp is not None:
        transports.add(pc.sctp.transport.transport)
    protocols: list[Any] = [protocol for transport in transports for protocol in transport._connection._protocols]
    before = [protocol.transport for protocol in protocols]
    for protocol in protocols:
        if close_sockets:
            protocol.transport.abort()
        protocol.transport = _BlackHole(protocol.transport)

    def mend() -> None:
        for protocol, transport in zip(protocols, before, strict=True):
            protocol.transport = transport

    return mend
