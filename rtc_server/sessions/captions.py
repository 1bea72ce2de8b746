"""A conversation's captions: its user's own words, written down by a transcribing model that hears the same microphone.

Owns the session's stream of that model. Captions are lent: they end when a client of the model wants their slot, when
load comes near the conversations, and with their engine, and come back by themselves. When the user pauses, the model
hears silence ahead of time: it writes a word as long after it was said as its delay is, and need not wait for that.
Knows nothing of transports.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.engine.stream import EngineStream, StreamOutput
from rtc_server.errors import EngineUnavailable, ServerError, ServerFull
from rtc_server.protocols import events
from rtc_server.sessions.captioner import Captioner
from rtc_server.transcription.live import FLUSH_EXTRA_S, frames_of
from rtc_server.transcription.words import Word, WordAssembler, WordEnd

logger = logging.getLogger(__name__)

_LAST_WORDS_S: Final = 1.0
"""How long the end of a conversation may wait for them."""
_AHEAD_EXTRA_S: Final = 4 * audio.FRAME_MS / 1000
"""Silence beyond the model's delay: it takes up to two frames more for a word, and one to close it."""
_HELD_FRAMES: Final = 25
"""Of the microphone, while silence goes to a model ahead of them."""


class Captions:
    """One session's. ``emit`` takes each event as it comes: words, and whether there are captions.

    ``wanted``: by the client, which may change its mind.
    """

    def __init__(
        self,
        captioner: Captioner,
        wanted: bool,
        emit: Callable[[events.ServerEvent | events.WordsComplete], None],
        log_id: str,
    ) -> None:
        self._captioner = captioner
        self._engine = captioner.engine
        self._wanted = wanted
        self._emit = emit
        self._log_id = log_id
        self._stream: EngineStream | None = None
        self._beginning: asyncio.Task[None] | None = None
        self._hears = False
        """The stream is behind its prefix: frames of the microphone go to it."""
        self._ahead: asyncio.Task[None] | None = None
        """Silence goes to the stream ahead of time; what the microphone hears meanwhile is held and follows it."""
        self._held: deque[FloatArray] = deque(maxlen=_HELD_FRAMES)
        self._complete: tuple[int, int] | None = None
        """When the model has heard so many frames, every word that was said until so many ms has come."""
        self._frames = self._frames_before = 0
        """Of the microphone since the conversation began, and of those, what came before the stream heard."""
        self._words = WordAssembler()
        self._told: bool | None = None
        self._closed = False

    @property
    def on(self) -> bool:
        return self._hears

    def go_on(self, frames: int) -> None:
        """So many frames of the microphone came before: times count on from there."""
        self._frames = frames

    def want(self, wanted: bool, now: float) -> None:
        """The client switches them on or off."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if wanted:
            self.look(now)
        else:
            self._end(None)

    def look(self, now: float) -> None:
        """End what has to end, and begin what can begin: to be called about twice a second. The first time it says
        whether there are captions."""
        if self._closed or not self._wanted:
            return
        if self._stream is None and self._beginning is None:
            error = self._captioner.hinders(now)
            if error is None:
                self._beginning = asyncio.create_task(self._begin(), name=f"captions-{self._log_id}")
        else:
            error = self._captioner.ends(now)
        if error is not None:
            self._end(error)

    def on_frame(self, pcm: FloatArray) -> None:
        """A frame of the microphone, as the conversation's model gets it."""
        self._frames += 1
        if self._hears and self._stream is not None and not self._closed:
            if self._ahead is None:
                self._stream.push(pcm)
            else:
                self._held.append(pcm)

    def on_pause(self, at_ms: int) -> None:
        """The user has not spoken since ``at_ms`` of the microphone: have the words until there written at once, if
        there is room for that."""
        info, stream = self._engine.info, self._stream
        if not self._hears or stream is None or info is None or self._closed or not self._captioner.hurries:
            return
        frames = frames_of(info.delay_s + _AHEAD_EXTRA_S + at_ms / 1000) - self._frames
        if frames > 0 and self._ahead is None:
            self._ahead = asyncio.create_task(self._hurry(stream, frames, at_ms), name=f"captions-{self._log_id}")

    def on_output(self, output: StreamOutput) -> None:
        if not self._hears:
            return
        self._tell(self._words.push(output.frame, output.mark, output.text))
        if self._complete is not None and output.frame >= self._complete[0]:
            until_ms, self._complete = self._complete[1], None
            self._emit(events.WordsComplete(until_ms))

    def on_engine_error(self, error: ServerError) -> None:
        """The slot was taken back, or the engine has ended: an engine that comes again is taken again."""
        self._stream = None
        self._end(error if isinstance(error, ServerFull) else EngineUnavailable())

    def reset(self) -> None:
        """A new conversation: times begin at 0 again."""
        self._frames = self._frames_before = 0
        self._stop_hurrying()
        if self._hears and self._stream is not None:
            self._set_hearing(False)
            self._stream.reset()
            self._beginning = asyncio.create_task(self._prepare(self._stream), name=f"captions-{self._log_id}")

    async def finish(self) -> None:
        """Nothing more will be said: silence brings out the last words, as fast as the engine takes it."""
        stream = self._stream
        if not self._hears or stream is None:
            return
        self._closed = True
        flush_s = FLUSH_EXTRA_S + (0.0 if self._engine.info is None else self._engine.info.delay_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                if self._ahead is not None:
                    # Not awaited itself: a reset or the loss of the slot cancels it, which would end the session's end.
                    await asyncio.wait({self._ahead})
                await stream.feed_silence(frames_of(flush_s))
                await stream.drained()
        self._tell(self._words.finish())

    async def close(self) -> None:
        """Give the stream back. Idempotent."""
        self._closed = True
        self._wanted = False
        tasks = [task for task in (self._beginning, self._ahead) if task is not None]
        self._release()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self) -> None:
        try:
            self._stream = await self._engine.open(self, spare=True)
        except ServerError as error:
            self._beginning = None
            self._end(error if isinstance(error, ServerFull) else EngineUnavailable())
        else:
            await self._prepare(self._stream)

    async def _prepare(self, stream: EngineStream) -> None:
        """Give the model the silence that it wants first. What the microphone hears meanwhile is not written down."""
        info = self._engine.info
        prefix_frames = 0 if info is None else frames_of(info.prefix_s)
        await stream.feed_silence(prefix_frames)
        if stream is not self._stream:  # lost meanwhile
            return
        self._beginning = None
        self._frames_before = self._frames
        self._words = WordAssembler(0.0 if info is None else info.delay_s, prefix_frames * audio.FRAME_MS / 1000)
        self._set_hearing(True)
        self._say(True, None)

    async def _hurry(self, stream: EngineStream, frames: int, at_ms: int) -> None:
        """Silence, as fast as the engine takes it, and behind it what the microphone has heard since."""
        self._words.insert(stream.pushed, frames)
        await stream.feed_silence(frames)
        self._complete = stream.pushed, at_ms
        while self._held:
            await stream.feed(self._held.popleft())
        self._ahead = None

    def _stop_hurrying(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
        self._ahead = self._complete = None
        self._held.clear()

    def _end(self, error: ServerError | None) -> None:
        """There are no captions from now on, because of ``error``, or because the client wants none."""
        if self._hears:
            self._tell(self._words.finish())
        self._release()
        self._say(False, error)

    def _release(self) -> None:
        self._set_hearing(False)
        self._stop_hurrying()
        if self._beginning is not None and self._beginning is not asyncio.current_task():
            self._beginning.cancel()
        self._beginning = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _set_hearing(self, hears: bool) -> None:
        self._captioner.on += hears - self._hears
        self._hears = hears

    def _say(self, on: bool, error: ServerError | None) -> None:
        if self._closed or on == self._told:
            return
        self._told = on
        reason = None if error is None else error.code
        if reason is not None:
            self._captioner.metrics.captions_off.labels(reason).inc()
        logger.debug("session %s: captions %s %s", self._log_id, "on" if on else "off", reason or "")
        self._emit(events.Captions("on" if on else "off", reason))

    def _tell(self, heard: list[Word | WordEnd]) -> None:
        before_ms = self._frames_before * audio.FRAME_MS
        for word in heard:
            if isinstance(word, Word):
                self._captioner.metrics.caption_words.inc()
                start_ms, end_ms = round(word.start_s * 1000), round(word.end_s * 1000)
                self._emit(events.Word(word.text, before_ms + start_ms, before_ms + end_ms))
