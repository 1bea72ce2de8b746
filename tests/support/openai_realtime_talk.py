"""What tests of OpenAI Realtime by WebSocket share."""

from __future__ import annotations

from rtc_server.app import Server


def url(server: Server, query: str = "?model=gpt-realtime") -> str:
    return f"http://127.0.0.1:{server.port}/v1/realtime{query}"
