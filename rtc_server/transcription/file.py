"""Transcribes a recording: a file's bytes in, a transcript out. Knows no HTTP, no terminal."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import IO, Final

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.decoding.findings import NOTICES
from rtc_server.decoding.reader import Decoders, MediaReader
from rtc_server.engine.engine import Engine
from rtc_server.engine.stream import WINDOW_FRAMES
from rtc_server.errors import TimeLimit
from rtc_server.transcription.captions import FileWarning, TimedWord, Transcript, breaks_at_gaps, split_turns
from rtc_server.transcription.stream import Heard, Step, Transcriber
from rtc_server.transcription.turns import SpeechEvent, SpeechKind
from rtc_server.transcription.words import Word

_SLICE_SAMPLES: Final = WINDOW_FRAMES * audio.FRAME_SAMPLES
"""Fed between two looks at what was heard."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the model is. ``words``: those that are new. ``duration_s``: as the file says, which may be wrong."""

    words: tuple[TimedWord, ...]
    heard_s: float
    duration_s: float | None


Tell = Callable[[Progress], Awaitable[None]]


async def transcribe(
    engine: Engine,
    decoders: Decoders,
    source: IO[bytes],
    settings: Settings,
    tell: Tell,
    limit_s: float = math.inf,
) -> Transcript:
    """All of ``source``, a regular file, as fast as the engine takes it. ``tell`` is awaited when the engine has taken
    it in, then every few frames, and may end it all by raising. Safe to cancel: the slot goes back.

    Raises NotAudio, FileUnreadable, TooLarge, TimeLimit (for more than ``limit_s`` of audio), ServerFull, Overloaded,
    EngineUnavailable, EngineFailed.
    """
    notes = _Notes()
    async with MediaReader(decoders, source) as reader:
        first = await anext(reader)  # no slot is taken for what cannot be decoded
        async with Transcriber(engine, notes.on_heard, settings.pause_threshold) as transcriber:
            samples = 0
            await tell(notes.progress(0, reader.duration_s))

            async def hear(block: FloatArray) -> None:
                nonlocal samples
                samples += block.size
                if samples > limit_s * audio.MODEL_RATE_HZ:
                    raise TimeLimit(f"The file has more than {limit_s:g} s of audio, as much as may be sent.")
                for start in range(0, block.size, _SLICE_SAMPLES):
                    await transcriber.feed(block[start : start + _SLICE_SAMPLES])
                    await tell(notes.progress(samples, reader.duration_s))

            await hear(first)
            async for block in reader:
                await hear(block)
            duration_ms = round(audio.samples_to_ms(samples))
            notes.end_ms = duration_ms
            await transcriber.finish()
        await tell(notes.progress(samples, reader.duration_s))
    has_heads = engine.info is not None and engine.info.pause_heads > 0
    breaks = notes.breaks if has_heads else breaks_at_gaps(notes.words, settings.turn_ms)
    warnings = tuple(FileWarning(notice, NOTICES[notice]) for notice in reader.notices)
    return Transcript(duration_ms, split_turns(notes.words, breaks), warnings)


class _Notes:
    """What was heard so far. ``end_ms``: of the audio, once it is known; what a model makes of the silence that it is
    fed after it is not later than that."""

    def __init__(self) -> None:
        self.words: list[TimedWord] = []
        self.breaks: list[int] = []
        self.end_ms: int | None = None
        self._heard_s = 0.0
        self._told = 0

    def on_heard(self, heard: Heard) -> None:
        match heard:
            case Word():
                self.words.append(TimedWord(heard.text, self._in_ms(heard.start_s), self._in_ms(heard.end_s)))
            case SpeechEvent(kind=SpeechKind.TURN_ENDED):
                self.breaks.append(len(self.words))
            case Step():
                self._heard_s = heard.frame * audio.FRAME_MS / 1000

    def progress(self, samples: int, duration_s: float | None) -> Progress:
        """``samples``: of the file, so far; the silence after it is not counted."""
        new: Sequence[TimedWord] = self.words[self._told :]
        self._told = len(self.words)
        return Progress(tuple(new), min(self._heard_s, audio.samples_to_ms(samples) / 1000), duration_s)

    def _in_ms(self, seconds: float) -> int:
        at_ms = round(seconds * 1000)
        return at_ms if self.end_ms is None else min(at_ms, self.end_ms)
