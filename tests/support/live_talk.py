"""What tests of OpenAI Live by WebSocket share."""

from __future__ import annotations

from lab.waiting import until
from rtc_server.app import Server
from tests.support.live import LiveClient


def at(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


async def closed(client: LiveClient) -> int | None:
    await until(lambda: client.socket.closed, "the close")
    return client.socket.close_code
