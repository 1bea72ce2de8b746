"""Examples of the documents, run as they stand there."""

from __future__ import annotations

from lab.network.vanishing import blackhole
from rtc_server.app import Server
from tests.support.nat import peer_of
from tests.test_docs import blocks

HZ = 440


RUN_S = 60.0


def example(language: str, name: str) -> str:
    """The block that begins with its name."""
    (code,) = [block for block in blocks(language) if name in block.split("\n", 1)[0]]
    return code


def cut(server: Server) -> None:
    """Nothing gets through any more between the server and its only client."""
    (call,) = server.registry
    pc = peer_of(call)
    blackhole(pc)
    for transceiver in pc.getTransceivers():
        for protocol in transceiver.receiver.transport.transport._connection._protocols:
            protocol.datagram_received = lambda data, address: None
