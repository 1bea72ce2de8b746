"""One stream through an engine: frames in, outputs back, in a slot for as long as it is open.

Owns the slot, its generation and what is in flight. Sends by what it is handed; knows nothing of how an engine is
started, nor of the other streams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from rtc_server.audio import FRAME_SAMPLES, silence
from rtc_server.engine.messages import PCM, AboutRow, Close, Frame, Lock, Opened, Output, Reset, ToEngine
from rtc_server.engine.model import FloatArray, TokenMark
from rtc_server.engine.slots import QUEUE_FRAMES
from rtc_server.errors import ServerError
from rtc_server.protocols.events import ClientMessage, ServerEvent, WordsComplete

_IN_FLIGHT_FRAMES: Final = 32
WINDOW_FRAMES: Final = QUEUE_FRAMES
"""Frames in flight that a stream which is not bound to real time may have without losing any."""


@dataclass(frozen=True, slots=True)
class StreamOutput:
    """What the model made of one frame.

    ``frame``: its number, from 1 at the start of the conversation or at its last reset. ``pcm``, ``text``, ``pauses``,
    ``mark``: see :class:`rtc_server.engine.model.RowOutput`. ``engine_s``: how long the frame was under way; None if
    that is not known any more.
    """

    frame: int
    pcm: FloatArray | None
    text: str
    pauses: tuple[float, ...]
    mark: TokenMark
    engine_s: float | None


class StreamListener(Protocol):
    """The one that opened a stream. Called on the event loop; must not block or raise."""

    def on_output(self, output: StreamOutput) -> None:
        """The model has made something of a frame."""

    def on_engine_error(self, error: ServerError) -> None:
        """The stream is dead."""


class Tape(Protocol):
    """Keeps what goes through a stream. Called on the event loop; must not block or raise."""

    def pushed(self, frame: Frame) -> None:
        """A frame was sent, or is kept."""

    @property
    def keeps(self) -> bool:
        """Whether frames are kept here instead of being sent: the row stands still."""

    def answered(self, output: Output) -> None:
        """The model has made something of a frame."""

    def told(self, message: AboutRow) -> None:
        """The engine says something of the stream's row."""

    def ended(self) -> None:
        """The stream has no row any more, or one that has been wiped."""


class EngineStream:
    """Made by :meth:`rtc_server.engine.client.EngineClient.open`.

    ``send`` never blocks, and says whether the engine took the message; ``on_close`` is called once, when the owner of
    the stream closes it.
    """

    def __init__(
        self,
        opened: Opened,
        listener: StreamListener,
        send: Callable[[ToEngine], bool],
        on_close: Callable[[EngineStream], None],
    ) -> None:
        self.slot = opened.slot
        self.generation = opened.generation
        self.opened = opened
        """The engine's answer: of a conversation that was another media node's, what there is to know."""
        self.closed = False
        self.listener = listener
        self.tape: Tape | None = None
        """As long as the stream's row is on its way to another engine."""
        self._locked: tuple[bytes, bytes] | None = None
        self._send = send
        self._on_close = on_close
        self._in_flight: dict[int, tuple[float, Frame]] = {}
        self._seq = 0
        self._origin = -opened.heard
        self._room = asyncio.Event()

    @property
    def language(self) -> str:
        """In which the one who speaks into it speaks, where the engine knows; else empty."""
        return ""

    def take(self, message: ClientMessage | ServerEvent | WordsComplete) -> bool:
        """A command of the client, or an event of what was heard in its microphone. Whether the engine has a use for
        it: those of models have none. Raises a ServerError for a command that cannot be obeyed."""
        return False

    @property
    def unanswered(self) -> list[Frame]:
        """The frames in flight, but for those that are long forgotten."""
        return [frame for _, frame in self._in_flight.values()]

    @property
    def pushed(self) -> int:
        """Frames since the conversation began; what the model makes of the last one has this number."""
        return self._seq - self._origin

    @property
    def in_flight(self) -> int:
        """Frames that were pushed and not answered yet. Up to :data:`WINDOW_FRAMES`, none of them
        is lost."""
        return len(self._in_flight)

    def push(self, pcm: FloatArray) -> bool:
        """Send a frame of 1,920 float32 samples. Never blocks; False if the engine did not take it."""
        if self.closed:
            return False
        self._seq += 1
        if len(self._in_flight) >= _IN_FLIGHT_FRAMES:
            self._in_flight.pop(next(iter(self._in_flight)))
        raw = np.ascontiguousarray(pcm, dtype=PCM).tobytes()
        frame = Frame(self.slot, self.generation, self._seq, raw)
        self._in_flight[self._seq] = time.monotonic(), frame
        taken = (self.tape is not None and self.tape.keeps) or self._send(frame)
        if not taken:
            self._in_flight.pop(self._seq, None)
        elif self.tape is not None:
            self.tape.pushed(frame)
        return taken

    async def feed(self, pcm: FloatArray) -> bool:
        """Push a frame as soon as the engine has room for it, for audio that does not come in real time: nothing is
        dropped. False once the stream is closed. Safe to cancel: then the frame was not pushed."""
        while not self.closed and self.in_flight >= WINDOW_FRAMES:
            self._room.clear()
            await self._room.wait()
        return self.push(pcm)

    async def feed_silence(self, frames: int) -> None:
        """:meth:`feed` so many frames of it."""
        for _ in range(frames):
            await self.feed(silence(FRAME_SAMPLES))

    async def drained(self) -> None:
        """Until every frame that was pushed is answered, or the stream is closed."""
        while not self.closed and self.in_flight:
            self._room.clear()
            await self._room.wait()

    def reset(self) -> None:
        """Wipe the model's state; outputs of the conversation so far are not delivered any more."""
        if not self.closed:
            self._in_flight.clear()
            self._room.set()
            self._origin = self._seq
            self._send(Reset(self.slot, self.generation))
            self.generation += 1  # the engine counts on in the same way: no answer is needed
            self._end_tape()

    def lock(self, digest: bytes, memo: bytes = b"") -> None:
        """Let this conversation be adopted by the key whose SHA-256 this is, in place of an earlier one; see
        :meth:`rtc_server.engine.client.EngineClient.adopt`. ``memo``: at most :data:`MEMO_BYTES`, which the adopter
        gets."""
        if not self.closed:
            self._locked = digest, memo
            self._send(Lock(self.slot, self.generation, digest, memo))

    def close(self) -> None:
        """Give the slot back. Idempotent."""
        if not self.closed:
            self._send(Close(self.slot, self.generation))
            self.leave()

    def leave(self) -> None:
        """Leave the slot, with what the model remembers, to the media node that has the key of :meth:`lock`. The
        engine keeps it for as long as that of an owner who is silent. Idempotent."""
        if not self.closed:
            self.closed = True
            self._room.set()
            self._on_close(self)
            self._end_tape()

    def lose(self, error: ServerError) -> None:
        """The engine is gone."""
        self.closed = True
        self._room.set()
        self._end_tape()
        self.listener.on_engine_error(error)

    def deliver(self, output: Output, now: float) -> float | None:
        """Hand one output to the listener; returns the time it was under way, in seconds."""
        if self.tape is not None:
            self.tape.answered(output)
        sent = self._in_flight.pop(output.seq, None)
        self._room.set()
        engine_s = None if sent is None else now - sent[0]
        pcm = None if output.pcm is None else np.frombuffer(output.pcm, dtype=PCM)
        frame = output.seq - self._origin
        self.listener.on_output(StreamOutput(frame, pcm, output.text, output.pauses, output.mark, engine_s))
        return engine_s

    def say(self, message: ToEngine) -> bool:
        """Tell the engine something of the stream's row. Never blocks; False if it did not take it."""
        return not self.closed and self._send(message)

    def go_on_in(self, other: EngineStream, frames: Iterable[Frame]) -> None:
        """Take the place of ``other``, whose row is this one's copy but for ``frames``, and give the slot so far back.
        What its engine still says of it is stale."""
        left = Close(self.slot, self.generation)
        self._on_close(self)
        leave, self._send, self._on_close = self._send, other._send, other._on_close
        self.slot, self.generation = other.slot, other.generation
        other.closed = True
        if self._locked is not None:
            self._send(Lock(self.slot, self.generation, *self._locked))  # for a moment, the key opens both
        leave(left)
        self.send_again(frames)

    def send_again(self, frames: Iterable[Frame]) -> None:
        """Frames that were pushed before, to where the stream is now."""
        for frame in frames:
            self.say(Frame(self.slot, self.generation, frame.seq, frame.pcm))

    def _end_tape(self) -> None:
        if self.tape is not None:
            self.tape.ended()
