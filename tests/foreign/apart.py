"""What the programs in an environment of their own share: a microphone that says wave files, and an ear.

Imported from beside them; needs nothing that is not Python's. Such a program is called with a URL, and with pairs of a
question and an answer (16 bits, mono, 24 kHz). It asks one question after the other, prints the words of each answer on
a line, and records its sound. ``count.wav+stop.wav`` is a question whose answer is interrupted: the second file is said
once three words of it are there.
"""

from __future__ import annotations

import asyncio
import sys
import time
import wave
from collections.abc import Awaitable, Callable, Iterator

RATE_HZ = 24_000
FRAME_S = 0.02
FRAME_BYTES = int(RATE_HZ * FRAME_S) * 2
WORDS = 3
MORE_WORDS = 4
"""After which it has not heard that it was interrupted, and is told again, as a person does."""
QUIET_S = 1.5
"""After so long without a sound an answer is over."""
PATIENCE_S = 40.0


class Ear:
    """What is heard of one answer."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Another answer."""
        self.sound = bytearray()
        self.words = 0
        self._sounded_at: float | None = None

    def hear(self, pcm: bytes) -> None:
        self.sound += pcm
        if any(pcm):
            self._sounded_at = time.monotonic()

    def read(self, text: str) -> None:
        self.words += len(text.split())
        print(text, end="", flush=True)

    @property
    def over(self) -> bool:
        return self._sounded_at is not None and time.monotonic() - self._sounded_at > QUIET_S


async def ask_all(files: tuple[str, ...], ear: Ear, say: Callable[[bytes], Awaitable[None]]) -> int:
    """Ask each question of ``files`` at the pace of a microphone; ``say`` takes 20 ms. Returns how many had no answer,
    or one without an end."""
    failed = 0
    for question, answer in zip(files[::2], files[1::2], strict=True):
        ear.begin()
        failed += not await _ask(*question.split("+"), ear=ear, say=say)
        print(flush=True)
        with wave.open(answer, "wb") as file:
            file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
            file.writeframes(ear.sound)
    return failed


async def _ask(question: str, *interruption: str, ear: Ear, say: Callable[[bytes], Awaitable[None]]) -> bool:
    said, interrupts_at = _frames(question), WORDS
    due = time.monotonic()
    gives_up_at = due + PATIENCE_S
    while time.monotonic() < gives_up_at:
        frame = next(said, b"")
        if not frame and interruption and ear.words >= interrupts_at:
            said, interrupts_at = _frames(*interruption), ear.words + MORE_WORDS
        elif not frame and ear.over:
            return True
        await say(frame.ljust(FRAME_BYTES, b"\0"))
        due += FRAME_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    print("no answer, or no end of it", file=sys.stderr)
    return False


def _frames(name: str) -> Iterator[bytes]:
    with wave.open(name) as file:
        while frame := file.readframes(FRAME_BYTES // 2):
            yield frame
