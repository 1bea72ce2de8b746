"""What a session's user says: frames at the pace of real time, and who hears them.

Owns the microphone's timeline, what finds speech and words in it, and the captions. Takes the model's stream to write
to; the session closes and resets that. Knows nothing of transports, of states, and of the model's voice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.engine.engine import Engine
from rtc_server.engine.model import ModelInfo, ServiceKind
from rtc_server.engine.stream import EngineStream, StreamOutput
from rtc_server.media.microphone import MicrophoneTimeline
from rtc_server.protocols import events
from rtc_server.sessions.captioner import Captioner
from rtc_server.sessions.captions import Captions
from rtc_server.sessions.intake import Intake
from rtc_server.sessions.stats import SessionStats
from rtc_server.transcription.live import Hearing

_FLUSH_WORDS_S: Final = 3.0
_FINISH_S: Final = 1.0


class UserAudio:
    """One session's. ``emit`` takes each event as it comes; ``on_speech`` is told when the user begins to speak, in
    milliseconds of the conversation. ``stats`` counts the frames. ``now``: monotonic seconds, here and below."""

    def __init__(
        self,
        stats: SessionStats,
        emit: Callable[[events.ServerEvent | events.WordsComplete], None],
        on_speech: Callable[[int], None],
        now: float,
    ) -> None:
        self.microphone = MicrophoneTimeline(now)
        self.captions: Captions | None = None
        """None: this conversation has none, whatever its client wants."""
        self._stats = stats
        self._emit = emit
        self._on_speech = on_speech
        self._stream: EngineStream | None = None
        self._intake: Intake | None = None
        self._hearing: Hearing | None = None
        self._frames = 0
        """Of the microphone, since the conversation began."""
        self.frames_before = 0
        """Those of them that the model has not heard: they came before another took its place."""
        self._all_said = False
        """What is heard from now on is not for the model any more."""

    @property
    def transcribes(self) -> bool:
        """Whether the model's output is the user's own words: :meth:`on_model_output` takes it."""
        return self._hearing is not None and self._hearing.transcribes

    async def open(
        self,
        stream: EngineStream,
        info: ModelInfo | None,
        settings: Settings,
        detector: Engine | None,
        frames_before: int = 0,
    ) -> None:
        """Write to ``stream`` from now on, first what its model wants before the microphone, unless it has heard that
        already. ``frames_before``: of a conversation that was another media node's, those that the model has not
        heard. A client of an echo hears no more of its speech than itself, unless the settings say so."""
        self._stream = stream
        self.frames_before = frames_before
        prefix_frames = 0
        self._frames = frames_before + stream.opened.heard
        if info is not None and (info.kind is not ServiceKind.ECHO or settings.vad == "on"):
            self._hearing = Hearing(info, settings, self._tell, self._on_speech)
            prefix_frames = self._hearing.prefix_frames
            self._frames = frames_before + max(0, stream.opened.heard - prefix_frames)
            self._hearing.go_on(self._frames, frames_before)
            await self._hearing.open(detector)
        self._intake = Intake(stream, prefix_frames)
        await self._intake.prepare(stream.opened.heard)

    def caption(self, captioner: Captioner | None, wanted: bool, log_id: str, now: float) -> None:
        """Have the words written down beside the conversation, from now on by ``captioner``: its client is not kept
        waiting for that."""
        if self.captions is not None:
            self.captions.want(False, now)
            self.captions = None
        if captioner is None:
            return
        self.captions = Captions(captioner, wanted, self._emit, log_id)
        self.captions.go_on(self._frames)
        self.captions.look(now)

    def push(self, pcm: FloatArray, now: float) -> int:
        """Samples at 24 kHz that came from the client. Returns how many frames they complete."""
        return self._hear(self.microphone.push(pcm, now))

    def poll(self, now: float) -> int:
        """Silence for what is overdue: see :meth:`MicrophoneTimeline.poll`. Returns how many frames that is."""
        return self._hear(self.microphone.poll(now))

    def on_model_output(self, output: StreamOutput) -> None:
        """What a transcribing model has written of a frame."""
        if self._hearing is not None:
            self._hearing.on_model_output(output)

    def at_ms(self, output: StreamOutput) -> int:
        """Up to where the model had heard the microphone when it made this."""
        return (self.frames_before + output.frame) * audio.FRAME_MS

    def lose_model(self) -> None:
        """The model is gone. What the microphone hears goes to the others that listen, until :meth:`renew_model`."""
        if self._hearing is not None:
            self._hearing.lose_model()

    def renew_model(self, stream: EngineStream) -> None:
        """Write to ``stream``, whose model has heard nothing yet. Times count on."""
        self._stream = stream
        self.frames_before = self._frames
        if self._hearing is not None:
            self._hearing.renew_model()
        if self._intake is not None:
            self._intake.go_on(stream)

    def reset(self) -> None:
        """A new conversation, for which the stream was reset: times begin at 0 again."""
        self._frames = self.frames_before = 0
        if self._intake is not None:
            self._intake.reset()
        if self._hearing is not None:
            self._hearing.reset()
        if self.captions is not None:
            self.captions.reset()

    async def flush_words(self) -> None:
        """Silence, as fast as the engine takes it, brings out the last words of one who has stopped talking. Of a model
        that does not transcribe there are none."""
        stream, intake, hearing = self._stream, self._intake, self._hearing
        if stream is None or intake is None or hearing is None or not hearing.transcribes:
            return
        self._all_said = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_WORDS_S):
                await intake.prepared()
                await stream.feed_silence(hearing.flush_frames)
                await stream.drained()
        hearing.finish()

    async def answered(self) -> None:
        """What was said until now is answered when this returns; nothing is heard after it."""
        self._all_said = True
        if self._stream is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FINISH_S):
                    await self._stream.drained()

    async def close(self) -> None:
        """Give back what was taken beside the model's stream. Idempotent."""
        for part in (self._intake, self._hearing, self.captions):
            if part is not None:
                await part.close()

    def _tell(self, event: events.ServerEvent) -> None:
        self._emit(event)
        if isinstance(event, events.SpeechEnded) and self.captions is not None:
            self.captions.on_pause(event.at_ms)

    def _hear(self, frames: list[FloatArray]) -> int:
        for frame in frames:
            self._frames += 1
            taken = self._intake is not None and not self._all_said and self._intake.push(frame)
            self._stats.frame_in(frame, taken)
            if self._hearing is not None:
                self._hearing.on_frame(frame)
            if self.captions is not None:
                self.captions.on_frame(frame)
        return len(frames)
