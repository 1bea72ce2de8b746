"""Moves a stream from one engine to another, with all that the model remembers, while its user talks.

The row is copied, and goes on where it is. The copy is then given the frames that the row has heard since, one after
the other, until it has caught up; what it makes of them has to be what the row has made. Then, between two frames, the
stream goes on in the copy, and the slot so far is given back. Until that moment everything stays as it was, and
whatever fails costs the copy alone: what is heard comes from one row at any time. A copy that does not catch up, for
its machine has no time to spare, is waited for: then the row stands still for as long as that takes: a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Iterable
from typing import Final

import numpy as np

from rtc_server.engine.client import EngineClient
from rtc_server.engine.messages import (
    FETCH_BYTES,
    PCM,
    PUT_BYTES,
    AboutRow,
    CannotMove,
    Export,
    Exported,
    Fetch,
    Frame,
    Output,
    Part,
    Put,
    Taken,
)
from rtc_server.engine.stream import WINDOW_FRAMES, EngineStream, StreamOutput
from rtc_server.errors import ServerError

_LIMIT_S: Final = 60.0
_BUSY_S: Final = 0.5
"""After which an engine that was copying another row is asked again."""
_CATCH_UP_S: Final = 5.0
"""For which a copy may try to catch up with a row that goes on."""
_MOST_BEHIND: Final = 25
"""Frames by which a copy may be behind for the row to stand still meanwhile: two seconds, and in most cases less."""
_MOST_FRAMES: Final = 750
"""That are kept of a stream that moves: a minute, 6 MB."""
_SAMPLE_TOLERANCE: Final = 1e-3
"""By which samples of the row and of its copy may differ, where two engines add up in another order. Another token
makes a hundred times of it."""
_PAUSE_TOLERANCE: Final = 0.05


class NotMoved(Exception):
    """The stream stays where it is. For the log."""


async def move(stream: EngineStream, old: EngineClient, new: EngineClient) -> None:
    """Move a stream of ``old`` to ``new``. Raises NotMoved, ServerFull, EngineUnavailable; then, and when cancelled,
    the stream is where it was, and as it was."""
    info = old.info
    if info is None or not info.row_format or new.info is None or new.info.row_format != info.row_format:
        raise NotMoved("the engines do not run the same model in the same way")
    tape = stream.tape = _Tape(asyncio.Event(), stream.unanswered)
    generation = stream.generation
    copy: EngineStream | None = None
    try:
        async with asyncio.timeout(_LIMIT_S):
            exported = await _exported(stream, tape)
            copy = await new.open_for_row(info.row_format, exported.heard, _Copy(tape))
            copied = copy.tape = _Tape(tape.news, of=tape)
            await _carry(stream, tape, copy, copied, exported.size)
            await _rehearse(tape, copy, copied, exported.seq)
            lent = old.is_lent(stream)
            tape.kept.clear()
            stream.go_on_in(copy, tape.unheard[-WINDOW_FRAMES:])
            new.receive(stream, lent)
    except TimeoutError:
        raise NotMoved(f"it was not done in {_LIMIT_S:.0f} s") from None
    finally:
        stream.tape = None
        if stream.generation == generation:
            stream.send_again(tape.kept[-WINDOW_FRAMES:])
        if copy is not None:
            copy.tape = None
            copy.close()


class _Tape:
    """What has gone through a stream since it was put in. ``news``: set with each of it. ``frames``: of before, and not
    answered. ``of``: the tape of the stream, for that of its copy, which ends with it."""

    def __init__(self, news: asyncio.Event, frames: Iterable[Frame] = (), of: _Tape | None = None) -> None:
        self.news = news
        self._of = of
        self._over = False
        self.frames: dict[int, Frame] = {frame.seq: frame for frame in frames}
        """That are not answered."""
        self.heard: deque[tuple[Frame | None, Output]] = deque()
        """In the order in which the model heard them; without the frame, if that was sent before."""
        self.keeps = False
        self.kept: list[Frame] = []
        """That were not sent."""
        self._replies: deque[AboutRow] = deque()

    @property
    def over(self) -> bool:
        return self._over or (self._of is not None and self._of.over)

    @property
    def unheard(self) -> list[Frame]:
        return list(self.frames.values())

    def pushed(self, frame: Frame) -> None:
        self.frames[frame.seq] = frame
        if self.keeps:
            self.kept.append(frame)
        self._over = self._over or len(self.frames) + len(self.heard) > _MOST_FRAMES
        self.news.set()

    def answered(self, output: Output) -> None:
        self.heard.append((self.frames.pop(output.seq, None), output))
        for seq in [seq for seq in self.frames if seq < output.seq]:
            del self.frames[seq]  # the engine had no room for it
        self.news.set()

    def told(self, message: AboutRow) -> None:
        self._replies.append(message)
        self.news.set()

    def ended(self) -> None:
        self._over = True
        self.news.set()

    async def change(self) -> None:
        """Until there is something new. Raises NotMoved if there will not be."""
        if not self.over:
            self.news.clear()
            await self.news.wait()
        if self.over:
            raise NotMoved("the conversation ended or began again, or an engine did not keep up")

    async def reply(self) -> AboutRow:
        while not self._replies or self.over:
            await self.change()
        return self._replies.popleft()


class _Copy:
    """The listener of a copy, which no client hears. What is told of it goes to the tape of the stream."""

    def __init__(self, tape: _Tape) -> None:
        self._tape = tape

    def on_output(self, output: StreamOutput) -> None:
        """It is on the copy's own tape."""

    def on_engine_error(self, error: ServerError) -> None:
        self._tape.ended()


async def _exported(stream: EngineStream, tape: _Tape) -> Exported:
    while True:
        _say(stream, Export(stream.slot, stream.generation))
        match await tape.reply():
            case Exported() as exported:
                return exported
            case CannotMove(busy=True):
                await asyncio.sleep(_BUSY_S)  # others' rows have no way to tell us
            case _:
                raise NotMoved("its engine does not let go of rows")


async def _carry(stream: EngineStream, tape: _Tape, copy: EngineStream, copied: _Tape, size: int) -> None:
    """Bring ``size`` bytes of state from one engine to the other: while a part is put, the next is on its way."""
    _ask_for(stream, 0, size)
    offset = 0
    whole = False
    while not whole:
        part = await tape.reply()
        if not isinstance(part, Part) or part.offset != offset or (size and not part.data):
            raise NotMoved("the copy of its row is gone")
        offset += len(part.data)
        if offset < size:
            _ask_for(stream, offset, size)
        for start in range(0, max(1, len(part.data)), PUT_BYTES):
            _say(copy, Put(copy.slot, copy.generation, part.data[start : start + PUT_BYTES]))
        written = -1
        while written < offset:
            taken = await copied.reply()
            if not isinstance(taken, Taken):
                raise NotMoved("the other engine cannot read its row")
            written, whole = taken.written, taken.whole
        if whole is not (offset >= size):
            raise NotMoved("the other engine's rows are of another size")


def _ask_for(stream: EngineStream, offset: int, size: int) -> None:
    _say(stream, Fetch(stream.slot, stream.generation, offset, min(FETCH_BYTES, size - offset)))


def _say(stream: EngineStream, message: Export | Fetch | Put | Frame) -> None:
    if not stream.say(message):
        raise NotMoved("an engine is gone, or does not keep up")


async def _rehearse(tape: _Tape, copy: EngineStream, copied: _Tape, since: int) -> None:
    """Have the copy hear what the row has heard after the frame ``since``, until there is nothing left of that."""
    expected: deque[Output] = deque()
    patience_ends = asyncio.get_running_loop().time() + _CATCH_UP_S
    while True:
        while copied.heard:
            _, made = copied.heard.popleft()
            if not expected or not _same(made, expected.popleft()):
                raise NotMoved("the other engine makes something else of the same sound")
        while tape.heard and len(expected) < WINDOW_FRAMES:
            frame, output = tape.heard.popleft()
            if output.seq <= since:
                continue
            if frame is None:
                raise NotMoved("a frame is missing")
            expected.append(output)
            _say(copy, Frame(copy.slot, copy.generation, frame.seq, frame.pcm))
        behind = len(tape.heard) + len(expected)
        if not behind and (tape.keeps or len(tape.frames) < WINDOW_FRAMES):
            return
        if behind <= _MOST_BEHIND and asyncio.get_running_loop().time() > patience_ends:
            tape.keeps = True
        await tape.change()


def _same(one: Output, other: Output) -> bool:
    if (one.seq, one.text, one.mark, len(one.pauses)) != (other.seq, other.text, other.mark, len(other.pauses)):
        return False
    if any(not math.isclose(a, b, abs_tol=_PAUSE_TOLERANCE) for a, b in zip(one.pauses, other.pauses, strict=True)):
        return False
    if one.pcm is None or other.pcm is None:
        return one.pcm is other.pcm
    with contextlib.suppress(ValueError):  # of two lengths
        difference = np.frombuffer(one.pcm, PCM) - np.frombuffer(other.pcm, PCM)
        return bool(np.abs(difference).max(initial=0.0) <= _SAMPLE_TOLERANCE)
    return False
