"""A conversation of OpenAI's agents in Python. They take seconds to import: the test that runs them does so itself."""

from __future__ import annotations

from typing import Any

from agents.realtime import (
    RealtimeAgent,
    RealtimeAgentEndEvent,
    RealtimeAudio,
    RealtimeError,
    RealtimeHistoryUpdated,
    RealtimeRawModelEvent,
    RealtimeRunner,
    RealtimeSession,
    RealtimeSessionEvent,
)
from agents.realtime.model_events import RealtimeModelTranscriptDeltaEvent

from rtc_server import audio
from rtc_server.audio import FRAME_SAMPLES
from tests.support.pace import every_frame
from tests.support.script import spoken


async def opened(url: str) -> RealtimeSession:
    """A session with an agent, by a runner; not entered yet."""
    runner = RealtimeRunner(RealtimeAgent(name="Pico", instructions="Be kind."))
    return await runner.run(model_config={"url": url, "api_key": "any"})


class Run:
    """A conversation of a RealtimeRunner's, and what it says of it."""

    def __init__(self, session: RealtimeSession) -> None:
        self._session = session
        self._left = b""
        self.sound = bytearray()
        self.words = ""
        """As they come; the history has those of an item when it is whole."""
        self.seen: list[RealtimeSessionEvent] = []
        self.history: list[Any] = []

    @property
    def states(self) -> list[str]:
        return [f"{item.role} {item.status}" for item in self.history if item.type == "message"]

    @property
    def troubles(self) -> list[RealtimeSessionEvent]:
        return [event for event in self.seen if isinstance(event, RealtimeError) or _is_trouble(event)]

    @property
    def turns(self) -> int:
        """Of the assistant that are over."""
        return sum(isinstance(event, RealtimeAgentEndEvent) for event in self.seen)

    def say(self, text: str) -> None:
        self._left += audio.to_int16(spoken(text)).tobytes()

    async def microphone(self) -> None:
        async for _ in every_frame():
            frame, self._left = self._left[: 2 * FRAME_SAMPLES], self._left[2 * FRAME_SAMPLES :]
            await self._session.send_audio(frame.ljust(2 * FRAME_SAMPLES, b"\0"))

    async def listen(self) -> None:
        async for event in self._session:
            match event:
                case RealtimeAudio(audio=said):
                    self.sound += said.data
                case RealtimeHistoryUpdated(history=items):
                    self.history = items
                case RealtimeRawModelEvent(data=RealtimeModelTranscriptDeltaEvent(delta=words)):
                    self.words += words
                case _:
                    self.seen.append(event)


def _is_trouble(event: RealtimeSessionEvent) -> bool:
    return isinstance(event, RealtimeRawModelEvent) and event.data.type in ("error", "exception")
