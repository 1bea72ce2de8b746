"""A transport of a test's own: it keeps what a session says through it."""

from __future__ import annotations

import json
import time
from typing import Any

from rtc_server.audio import FloatArray
from rtc_server.protocols.events import ServerEvent
from rtc_server.sessions.transport import TransportFigures, Unreached


class HandTransport:
    """``played``: frames of voice; ``events``: messages, parsed. Its owner is told by the test what happens to it."""

    name = endpoint = "by hand"
    sends = True
    failure: Unreached | None = None
    deadline: float | None = None

    def __init__(self, figures: TransportFigures | None = None) -> None:
        self.opened_at = time.monotonic()
        self.connected = self.channel_open = False
        self.figures = figures or TransportFigures()
        self.played: list[FloatArray] = []
        self.events: list[dict[str, Any]] = []
        self.cleared = 0
        self.retired = self.closed = False

    def poll(self, now: float) -> None:
        raise AssertionError("nothing is due")

    def send(self, message: str, event: ServerEvent | None) -> bool:
        self.events.append(json.loads(message))
        return True

    def play(self, pcm: FloatArray, now: float) -> None:
        self.played.append(pcm)

    def clear(self) -> None:
        self.cleared += 1

    async def look(self) -> TransportFigures:
        return self.figures

    def silent_s(self, now: float) -> float:
        return 0.0

    def unreached(self) -> Unreached:
        return Unreached(detail="It is not plugged in.")

    def retire(self) -> None:
        self.retired = True

    async def close(self, flush: bool = True) -> None:
        self.closed = True
