"""Feeds one stream of audio to a model that transcribes, as fast as its engine takes it: for files and sockets.

Nothing is dropped: its feeder waits. Knows nothing of files, sockets or calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rtc_server import audio
from rtc_server.audio import FloatArray, FrameAssembler
from rtc_server.engine.engine import Engine
from rtc_server.engine.model import TokenMark
from rtc_server.engine.stream import EngineStream, StreamOutput
from rtc_server.errors import EngineFailed, EngineUnavailable, ServerError
from rtc_server.transcription.live import FLUSH_EXTRA_S, frames_of
from rtc_server.transcription.turns import HeadTracker, SpeechEvent
from rtc_server.transcription.words import Word, WordAssembler, WordEnd


@dataclass(frozen=True, slots=True)
class Step:
    """The model has heard ``frame`` frames, the prefix not counted. ``pauses``: of its heads, if it has any."""

    frame: int
    pauses: tuple[float, ...]


Heard = Word | WordEnd | SpeechEvent | Step
OnHeard = Callable[[Heard], None]
OnError = Callable[[ServerError], None]


class Transcriber:
    """An open stream; use it as an asynchronous context manager. ``on_heard`` is called with each thing that is heard,
    in order, on the event loop; it must not block or raise. Times are in the audio that was fed.

    ``prefix``: put the silence that the model wants before the audio; False where the audio has it already.
    ``on_error``: told at once when the engine is lost, for those who may not be feeding just then.
    """

    def __init__(
        self,
        engine: Engine,
        on_heard: OnHeard,
        pause_threshold: float,
        prefix: bool = True,
        on_error: OnError = lambda _: None,
    ) -> None:
        self._engine = engine
        self._on_heard = on_heard
        self._pause_threshold = pause_threshold
        self._prefix = prefix
        self._on_error = on_error
        self._frames = FrameAssembler()
        self._prefix_frames = 0
        self._heard_ms = 0
        self._error: ServerError | None = None
        self._stream: EngineStream
        self._words: WordAssembler
        self._heads: HeadTracker | None

    async def __aenter__(self) -> Self:
        """Raises ServerFull, EngineUnavailable."""
        info = self._engine.info
        if info is None:
            raise EngineUnavailable
        self._stream = await self._engine.open(self)
        self._prefix_frames = frames_of(info.prefix_s) if self._prefix else 0
        self._words = WordAssembler(info.delay_s, self._prefix_frames * audio.FRAME_MS / 1000)
        self._heads = HeadTracker(self._pause_threshold) if info.pause_heads else None
        self._flush_frames = frames_of(info.delay_s + FLUSH_EXTRA_S)
        try:
            await self._stream.feed_silence(self._prefix_frames)
        except BaseException:
            self._stream.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the slot back; what is under way is not waited for: see :meth:`finish`."""
        self._stream.close()

    @property
    def delay_frames(self) -> int:
        """Frames by which the model writes after it has heard."""
        info = self._engine.info
        return 0 if info is None else frames_of(info.delay_s)

    async def feed(self, pcm: FloatArray) -> None:
        """Mono float32 at 24 kHz, any length. Waits while the engine is busy with what it has. Raises EngineFailed."""
        for frame in self._frames.push(audio.sanitise(pcm)):
            await self._feed(frame)

    async def finish(self) -> None:
        """There is no more: brings out the last words, and returns when they have been told. Raises EngineFailed."""
        if self._frames.buffered_samples:
            await self.feed(audio.silence(audio.FRAME_SAMPLES - self._frames.buffered_samples))
        for _ in range(self._flush_frames):
            await self._feed(audio.silence(audio.FRAME_SAMPLES))
        await self._stream.drained()
        if self._error is not None:
            raise self._error
        for made in (*self._words.finish(), *(self._heads.finish(self._heard_ms) if self._heads else ())):
            self._on_heard(made)

    async def _feed(self, frame: FloatArray) -> None:
        while not await self._stream.feed(frame):
            if self._stream.closed:
                raise self._error or EngineFailed()
            await self._stream.drained()

    def on_output(self, output: StreamOutput) -> None:
        for made in self._words.push(output.frame, output.mark, output.text):
            self._on_heard(made)
        if self._heads is not None:
            self._heard_ms = round(self._words.time_s(output.frame) * 1000)
            for event in self._heads.push(self._heard_ms, output.pauses, output.mark is TokenMark.TEXT):
                self._on_heard(event)
        if output.frame > self._prefix_frames:
            self._on_heard(Step(output.frame - self._prefix_frames, output.pauses))

    def on_engine_error(self, error: ServerError) -> None:
        self._error = error
        self._on_error(error)
