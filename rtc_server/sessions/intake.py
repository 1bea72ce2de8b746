"""Frames of the microphone on their way into a session's stream, whose model may want silence first.

A reset begins with that silence again: times of words count from behind it. What the microphone hears meanwhile waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from rtc_server.audio import FloatArray
from rtc_server.engine.stream import EngineStream

_MAX_WAITING_FRAMES: Final = 25
"""Two seconds: a model takes the silence faster than real time."""


class Intake:
    """``prefix_frames``: of silence that the model wants."""

    def __init__(self, stream: EngineStream, prefix_frames: int) -> None:
        self._stream = stream
        self._prefix_frames = prefix_frames
        self._waiting: deque[FloatArray] = deque()
        self._preparing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self, heard: int = 0) -> None:
        """Give the model its silence, and what has come meanwhile, as fast as it takes them. ``heard``: frames that it
        has heard before."""
        await self._stream.feed_silence(self._prefix_frames - heard)
        while self._waiting:
            await self._stream.feed(self._waiting.popleft())

    def push(self, pcm: FloatArray) -> bool:
        """A frame of the microphone. False if it is lost."""
        if self._preparing is None:
            return self._stream.push(pcm)
        if len(self._waiting) >= _MAX_WAITING_FRAMES:
            return False
        self._waiting.append(pcm)
        return True

    def reset(self) -> None:
        """The model begins: nothing of the conversation before waits for the new one."""
        self._waiting.clear()
        if self._prefix_frames:
            if self._preparing is not None:
                self._preparing.cancel()
            self._preparing = asyncio.create_task(self._prepare_again(), name="intake")
            self._tasks.add(self._preparing)
            self._preparing.add_done_callback(self._tasks.discard)

    def go_on(self, stream: EngineStream) -> None:
        """Another stream takes the place of the one there was, whose model is gone."""
        self._stream = stream
        self.reset()

    async def prepared(self) -> None:
        """Until nothing waits."""
        while self._preparing is not None:
            await asyncio.wait((self._preparing,))

    async def close(self) -> None:
        """Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _prepare_again(self) -> None:
        try:
            await self.prepare()
        finally:
            if self._preparing is asyncio.current_task():
                self._preparing = None
