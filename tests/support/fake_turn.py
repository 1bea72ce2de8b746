"""A TURN server that gives no address: it answers every request with one error, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aioice import stun


class FakeTurn(asyncio.DatagramProtocol):
    """Asks for credentials, as RFC 8489, section 9.2.4 wants it, and refuses whatever comes with some.

    ``error``: code and reason of the refusal; ``None``: silence.
    """

    def __init__(self, error: tuple[int, str] | None) -> None:
        self._error = error
        self.port = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        if self._error is None:
            return
        request = stun.parse_message(data)
        answer = stun.Message(request.message_method, stun.Class.ERROR, request.transaction_id)
        known = "USERNAME" in request.attributes
        answer.attributes["ERROR-CODE"] = self._error if known else (401, "Unauthorized")
        answer.attributes["REALM"] = "test"
        answer.attributes["NONCE"] = b"nonce"
        self._transport.sendto(bytes(answer), source)


@contextlib.asynccontextmanager
async def fake_turn(error: tuple[int, str] | None) -> AsyncIterator[str]:
    """Its ``turn:`` URL, on a free port of this machine."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: FakeTurn(error), local_addr=("127.0.0.1", 0))
    try:
        yield f"turn:127.0.0.1:{protocol.port}?transport=udp"
    finally:
        transport.close()
