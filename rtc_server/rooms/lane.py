"""One speaker's lane: a row of a model that translates them while they speak, from the first frame to the last.

Owns the row, the message that grows, and when the row is wiped. Times are counted in frames of the microphone. Knows
nothing of transports, nor of utterances.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FRAME_MS, FRAME_SAMPLES, FloatArray
from rtc_server.engine.engine import Engine
from rtc_server.engine.stream import EngineStream, StreamOutput
from rtc_server.errors import ServerError
from rtc_server.rooms.member import Member
from rtc_server.rooms.message import Message
from rtc_server.rooms.room import Room

_GROWTH_FRAMES: Final = 8
"""Between two events of a message that grows."""
_MOST_TEXT: Final = 1_000
_MOST_HEARD: Final = 4
_SLACK_MS: Final = 400
"""By so much, at most, speech has begun before its detector tells."""
_LAG_MS: Final = 6_000
"""Longer than such a model lags behind a speaker: if it has written nothing for so long, it has nothing more to say."""
_MOST_UNSAID: Final = 16
"""Utterances: a lag has no more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """In frames of 80 ms. ``oldest``: a row that is older is wiped at the next pause of ``pause`` frames: the models
    were trained on two minutes. ``quiet``: of the model, after which its message has ended. ``longest``: a message."""

    oldest: int = 75_000 // FRAME_MS
    pause: int = 2_000 // FRAME_MS
    quiet: int = 1_520 // FRAME_MS
    longest: int = 12_000 // FRAME_MS


@dataclass(frozen=True, slots=True)
class Unsaid:
    """What was said, up to ``end_ms`` of the microphone, and the model has yet to say. ``pcm``: as it was said, where
    the translator of utterances hears for itself."""

    message: Message
    end_ms: int
    pcm: FloatArray | None


class Lane:
    """From ``source`` into ``target``. ``paused``: whether nothing can be written down just now. ``on_failed``: called
    with the reason when there is no row, or not any more; ``failed``: it was. ``resets``: how often the row was
    wiped."""

    def __init__(
        self,
        room: Room,
        member: Member,
        source: str,
        target: str,
        clock: Callable[[], float],
        paused: Callable[[], bool],
        on_failed: Callable[[ServerError], None],
        limits: Limits,
    ) -> None:
        self.target = target
        self.failed = False
        self.resets = 0
        self._room = room
        self._member = member
        self._source = source
        self._clock = clock
        self._paused = paused
        self._on_failed = on_failed
        self._limits = limits
        self._stream: EngineStream | None = None
        self._closed = False
        self._since_ms: int | None = None
        self._origin_ms = 0
        """Of the microphone, when the conversation with the model began."""
        self._written_ms = 0
        """Of the microphone, at the frame for which the model wrote last."""
        self._unsaid: deque[Unsaid] = deque(maxlen=_MOST_UNSAID)
        self._age = self._quiet = 0
        self._message: Message | None = None
        self._text = ""
        self._told = ""
        self._silent = 0
        self._sound: list[FloatArray] = []
        self._heard: list[str] = []

    @property
    def open(self) -> bool:
        """Whether there is a row."""
        return self._stream is not None and not self.failed

    async def take(self, engine: Engine) -> None:
        """Take a row of ``engine``; if there is none, the lane has failed."""
        try:
            stream = await engine.open(self)
        except ServerError as error:
            self._fail(error)
            return
        if self._closed:
            stream.close()
        else:
            self._stream = stream

    def push(self, frame: FloatArray, at_ms: int, quiet: bool, may_begin: bool) -> None:
        """A frame of the microphone, whose end is at ``at_ms`` of it. ``may_begin``: what is said from here on is for
        the lane, if it was not before. ``quiet``: there is no speech in it."""
        if self._stream is None or self.failed:
            return
        if self._since_ms is None:
            if not may_begin:
                return
            self._since_ms = self._origin_ms = at_ms - FRAME_MS
            self._room.begin_interpreting(self._member, self.target)
        self._age += 1
        self._quiet = self._quiet + 1 if quiet else 0
        if self._age >= self._limits.oldest and self._quiet >= self._limits.pause and self._message is None:
            self._stream.reset()
            self._origin_ms = at_ms - FRAME_MS
            self.resets += 1
            self._age = 0
            self._heard.clear()
        self._stream.push(frame)

    def covers(self, start_ms: int) -> bool:
        """Whether what was said from ``start_ms`` of the microphone on has been heard by the model."""
        return not self.failed and self._since_ms is not None and start_ms + _SLACK_MS >= self._since_ms

    def hear(self, message: Message, end_ms: int, pcm: FloatArray | None = None) -> None:
        """What was said up to ``end_ms`` of the microphone, and has been heard by the model: as another one has written
        it down, or as sound."""
        self._unsaid.append(Unsaid(message, end_ms, pcm))
        if message.original:
            self._heard = [*self._heard[-_MOST_HEARD + 1 :], message.original]
            if self._message is not None:
                self._take_heard(self._message)

    def take_unsaid(self) -> list[Unsaid]:
        """What the model has not come to, or not to the end of, the oldest first. Once."""
        unsaid = list(self._unsaid)
        self._unsaid.clear()
        return unsaid

    def close(self) -> None:
        """Give the row back; what there is of a message is the message. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            self._stream.close()
        self._end()

    def on_output(self, output: StreamOutput) -> None:
        if self._closed or self.failed:
            return
        pcm = audio.silence(FRAME_SAMPLES) if output.pcm is None else audio.sanitise(output.pcm)
        self._room.interpret(self._member, self.target, pcm)
        heard_ms = self._origin_ms + output.frame * FRAME_MS
        if output.text:
            self._write(output.text, heard_ms)
        else:
            self._silent += 1
        if self._message is not None:
            self._sound.append(pcm)
            if self._silent >= self._limits.quiet:
                self._end_message()
            elif len(self._sound) % _GROWTH_FRAMES == 0 and self._text != self._told:
                self._grow(self._message)
        if self._message is None:
            self._tick_off(heard_ms)

    def on_engine_error(self, error: ServerError) -> None:
        self._fail(error)

    def _fail(self, error: ServerError) -> None:
        if not self.failed and not self._closed:
            self.failed = True
            self._on_failed(error)
            self._end()

    def _end(self) -> None:
        self._end_message()
        if self._since_ms is not None:
            self._room.end_interpreting(self._member)

    def _tick_off(self, heard_ms: int) -> None:
        """The model is silent, and has heard the microphone up to ``heard_ms``: it has said what it wrote on after, and
        what is long ago."""
        while self._unsaid and (
            self._unsaid[0].end_ms <= self._written_ms or self._unsaid[0].end_ms + _LAG_MS <= heard_ms
        ):
            self._unsaid.popleft()

    def _write(self, text: str, heard_ms: int) -> None:
        self._silent = 0
        if self._message is not None and self._is_full(text.startswith(" ")):
            self._end_message()
        if self._message is not None:
            self._text += text
            self._written_ms = heard_ms
        elif text.strip() and not self._paused():
            self._text = self._told = text.strip()
            self._written_ms = heard_ms
            now = self._clock()
            self._message = self._room.begin_message(self._member, self._source, self.target, self._text, now)
            self._take_heard(self._message)

    def _is_full(self, at_a_word: bool) -> bool:
        """Whether the message is to end here; in the middle of a word it may become twice as long."""
        limit = 1 if at_a_word else 2
        return len(self._sound) >= limit * self._limits.longest or len(self._text) >= limit * _MOST_TEXT

    def _grow(self, message: Message) -> None:
        self._told = self._text
        self._room.grow(message, self._text.rstrip(), self._clock())

    def _take_heard(self, message: Message) -> None:
        message.original = " ".join([message.original, *self._heard]).strip()
        self._heard.clear()

    def _end_message(self) -> None:
        message, self._message = self._message, None
        text, self._text = self._text.strip(), ""
        sound, self._sound = self._sound, []
        if message is not None:
            pcm = np.concatenate([audio.silence(0), *sound])
            self._room.end_message(message, text, pcm, len(sound) * FRAME_MS, self._clock())
