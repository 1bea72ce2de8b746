"""Turns model output or voice-activity probabilities into a session's events: words, speech, turns.

Owns the session's stream of the voice-activity engine. Knows nothing of connections.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Final

from rtc_server.audio import FRAME_MS, FloatArray
from rtc_server.config import Settings
from rtc_server.engine.engine import Engine
from rtc_server.engine.model import ModelInfo, ServiceKind, TokenMark
from rtc_server.engine.stream import EngineStream, StreamOutput
from rtc_server.errors import EngineFailed, EngineUnavailable, ServerError
from rtc_server.protocols import events
from rtc_server.transcription.turns import HeadTracker, SpeechEvent, SpeechKind, VoiceTracker
from rtc_server.transcription.words import Word, WordAssembler, WordEnd

logger = logging.getLogger(__name__)

FLUSH_EXTRA_S: Final = 1.0
"""Silence after the model's own delay that it wants before its last word is surely there."""
_REOPEN_PAUSE_S: Final = 0.2
"""Between two tries to have a detector that says it is ready and then is not."""


def frames_of(seconds: float) -> int:
    """So many whole frames are at least that long."""
    return math.ceil(round(seconds * 1000 / FRAME_MS, 6))


class Hearing:
    """One session. ``emit`` takes each event as it comes; ``on_started`` is told when the user begins to speak."""

    def __init__(
        self,
        info: ModelInfo,
        settings: Settings,
        emit: Callable[[events.ServerEvent], None],
        on_started: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._info = info
        self._settings = settings
        self._emit = emit
        self._on_started = on_started
        self._detector: Engine | None = None
        self._stream: EngineStream | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._frames: int
        self._frames_before: int
        self._model_before_ms: int
        self._words: WordAssembler
        self._voice: VoiceTracker
        self._heads: HeadTracker | None
        self._begin()

    @property
    def transcribes(self) -> bool:
        return self._info.kind is ServiceKind.TRANSCRIBE

    @property
    def prefix_frames(self) -> int:
        """Frames of silence that the model wants before the first of the microphone."""
        return frames_of(self._info.prefix_s) if self.transcribes else 0

    @property
    def flush_frames(self) -> int:
        """Frames of silence after the last of the microphone, which bring out the last word."""
        return frames_of(self._info.delay_s + FLUSH_EXTRA_S) if self.transcribes else 0

    async def open(self, detector: Engine | None) -> None:
        """Take a stream of the detector, where one is needed. While it cannot be had there are no speech events."""
        if detector is None or self._heads is not None:
            return
        self._detector = detector
        try:
            self._stream = await detector.open(self)
        except ServerError as error:
            self._lost(error)

    def go_on(self, frames: int, model_before: int = 0) -> None:
        """So many frames of the microphone were heard before: times count on from there. ``model_before``: those of
        them that the model has not heard."""
        self._frames = self._frames_before = frames
        self._model_before_ms = model_before * FRAME_MS
        self._heard_ms = frames * FRAME_MS

    def on_frame(self, pcm: FloatArray) -> None:
        """A frame of the microphone, as the model gets it."""
        self._frames += 1
        if self._stream is not None:
            self._stream.push(pcm)

    def on_model_output(self, output: StreamOutput) -> None:
        """Take a transcribing model's output of a frame."""
        if not self.transcribes:
            return
        wrote = output.mark is TokenMark.TEXT
        for made in self._words.push(output.frame, output.mark, output.text):
            self._emit_word(made)
        if self._heads is not None:
            self._heard_ms = self._model_before_ms + round(self._words.time_s(output.frame) * 1000)
            self._tell(self._heads.push(self._heard_ms, output.pauses, wrote))

    def on_output(self, output: StreamOutput) -> None:
        self._heard_ms = (self._frames_before + output.frame) * FRAME_MS
        made = self._voice.push(self._heard_ms, 1.0 - output.pauses[0])
        self._tell([event for event in made if self.transcribes or event.kind is not SpeechKind.TURN_ENDED])

    def on_engine_error(self, error: ServerError) -> None:
        self._stream = None
        self._lost(error)

    def finish(self) -> None:
        """Nothing more will be heard: the word and the turn that are open end."""
        self.lose_model()
        if self._heads is None and self.transcribes:
            self._tell(self._voice.finish(self._heard_ms))

    def lose_model(self) -> None:
        """The model is gone: what it was writing ends. A detector goes on."""
        for made in self._words.finish():
            self._emit_word(made)
        if self._heads is not None:
            self._tell(self._heads.finish(self._heard_ms))

    def renew_model(self) -> None:
        """Another model begins to hear here: its frames count from one again."""
        self._begin_model()
        self._model_before_ms = self._frames * FRAME_MS

    def reset(self) -> None:
        """A new conversation: times begin at 0 again."""
        self._begin()
        if self._stream is not None:
            self._stream.reset()

    async def close(self) -> None:
        """Give the detector's stream back. Idempotent."""
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        if self._stream is not None:
            self._stream.close()

    def _lost(self, error: ServerError) -> None:
        """The detector cannot be had: where that may pass, take it again when it has."""
        logger.warning("no voice-activity detection for a session: %s", error.code)
        if self._detector is not None and isinstance(error, EngineFailed | EngineUnavailable):
            self._reopening = asyncio.create_task(self._reopen(self._detector), name="detector-reopen")

    async def _reopen(self, detector: Engine) -> None:
        """Its frames count from one again; those that came before go on counting here."""
        while self._stream is None:
            await detector.wait_ready()
            try:
                stream = await detector.open(self)
            except EngineUnavailable:  # it ended once more
                await asyncio.sleep(_REOPEN_PAUSE_S)
            except ServerError as error:
                logger.warning("no voice-activity detection for a session any more: %s", error.code)
                return
            else:
                self._stream, self._frames_before = stream, self._frames

    def _begin(self) -> None:
        settings = self._settings
        self._frames = self._frames_before = self._model_before_ms = 0
        self._heard_ms = 0
        self._voice = VoiceTracker(settings.vad_threshold, settings.vad_hangover_ms, settings.turn_ms)
        self._begin_model()

    def _begin_model(self) -> None:
        settings, info = self._settings, self._info
        self._words = WordAssembler(info.delay_s, self.prefix_frames * FRAME_MS / 1000)
        heads = self.transcribes and info.pause_heads > 0
        self._heads = HeadTracker(settings.pause_threshold) if heads else None

    def _emit_word(self, made: Word | WordEnd) -> None:
        if isinstance(made, Word):
            start_ms, end_ms = round(made.start_s * 1000), round(made.end_s * 1000)
            self._emit(events.Word(made.text, self._model_before_ms + start_ms, self._model_before_ms + end_ms))

    def _tell(self, made: list[SpeechEvent]) -> None:
        for event in made:
            match event.kind:
                case SpeechKind.STARTED:
                    self._emit(events.SpeechStarted(event.at_ms))
                    self._on_started(event.at_ms)
                case SpeechKind.ENDED:
                    self._emit(events.SpeechEnded(event.at_ms))
                case SpeechKind.TURN_ENDED:
                    self._emit(events.TurnEnded(event.at_ms))
