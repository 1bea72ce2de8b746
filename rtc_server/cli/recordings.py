"""What commands share that transcribe recordings: a file opened and transcribed, what is wrong with it, text that is
written whole or not at all, and the line that tells how far all files are. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, TextIO

from rtc_server.config import Settings
from rtc_server.decoding.reader import Decoders
from rtc_server.engine.client import EngineClient
from rtc_server.errors import (
    EngineFailed,
    EngineUnavailable,
    FileUnreadable,
    NotAudio,
    ServerError,
    TooLarge,
)
from rtc_server.transcription.captions import Transcript
from rtc_server.transcription.file import Progress, transcribe

_RESTART_S: Final = 60.0
"""For which files wait for an engine that is being restarted."""
_POLL_S: Final = 0.2
_BAR_CELLS: Final = 24
_REDRAW_S: Final = 0.1
_HINTS: Final[dict[type[ServerError], str]] = {
    NotAudio: "Listen to it with another program: it may be empty, broken, or of a kind that this one does not read.",
    FileUnreadable: "Convert it with another program, and try what that makes of it.",
    TooLarge: "Cut it into parts.",
    EngineFailed: "Its log is above. Try again with fewer at a time: --stt-slots.",
    EngineUnavailable: "Its log is above. Try again with fewer at a time: --stt-slots.",
}


class FileError(Exception):
    """One file cannot be read, or what is made of it not be written."""

    def __init__(self, path: Path, what: str, hint: str | None) -> None:
        self.hint = hint
        super().__init__(f"{path}: {what}")


def missing_file(path: Path) -> FileError | None:
    """Find what is wrong with a file without opening it: a pipe can be read only once."""
    try:
        number = errno.EISDIR if path.is_dir() else 0 if os.access(path, os.R_OK) else errno.EACCES
        path.stat()
    except OSError as error:
        number = error.errno or errno.EIO
    return FileError(path, f"cannot be read: {os.strerror(number)}.", None) if number else None


def explain(error: FileError) -> None:
    print(f"error: {error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


async def transcribed(path: Path, engine: EngineClient, decoders: Decoders, settings: Settings, bar: Bar) -> Transcript:
    """All that is said in a file. What is wrong with parts of it is told. Raises FileError."""

    async def show(progress: Progress) -> None:
        bar.show(path, progress)

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_opened(path))
        source = stack.enter_context(await asyncio.to_thread(_regular, path, file))
        try:
            await _until_ready(engine)
            transcript = await transcribe(engine, decoders, source, settings, show)
        except ServerError as error:
            raise FileError(path, error.message, _HINTS.get(type(error))) from None
    bar.clear()
    for warning in transcript.warnings:
        print(f"warning: {path}: {warning.message}", file=sys.stderr)
    return transcript


def write_text(text: str, target: Path | None) -> None:
    """Whole or not at all: a transcript that was there before stays where the new one finds no room."""
    try:
        if target is None:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        part = target.with_name(f"{target.name}.part")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(
            target or Path("standard output"), f"cannot be written: {error.strerror}.", "Name a place with --output."
        ) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}.", None) from None
    with file:
        yield file


def _regular(path: Path, file: IO[bytes]) -> IO[bytes]:
    """``file``, or all that comes out of it where it is a pipe: decoders look at the end before the middle."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    kept = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's
    try:
        shutil.copyfileobj(file, kept)
        kept.flush()
    except OSError as error:
        kept.close()
        raise FileError(path, f"cannot be read: {error.strerror}.", None) from None
    return kept


async def _until_ready(engine: EngineClient) -> None:
    """Raises EngineUnavailable when it takes too long."""
    deadline = time.monotonic() + _RESTART_S
    while not engine.ready:
        if time.monotonic() > deadline:
            raise EngineUnavailable
        await asyncio.sleep(_POLL_S)


class Bar:
    """One line for all files, at a terminal: how much of the audio that is known of is done."""

    def __init__(self, files: int, stream: TextIO) -> None:
        self._files = files
        self._stream = stream
        self._seen = stream.isatty()
        self._started = time.monotonic()
        self._drawn_at = -math.inf
        self._heard_s: dict[Path, float] = {}
        self._duration_s: dict[Path, float | None] = {}
        self._done = 0

    @contextlib.contextmanager
    def shown(self) -> Iterator[Bar]:
        """Leaves the line empty."""
        try:
            yield self
        finally:
            self.clear()

    def show(self, path: Path, progress: Progress) -> None:
        self._heard_s[path], self._duration_s[path] = progress.heard_s, progress.duration_s
        self._draw()

    def done(self, path: Path) -> None:
        self._done += 1
        self._duration_s[path] = self._heard_s.get(path, 0.0)
        self._draw()

    def clear(self) -> None:
        if self._seen:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def text(self, took_s: float) -> str:
        heard_s = sum(self._heard_s.values())
        known = [max(self._heard_s.get(path, 0.0), of_s) for path, of_s in self._duration_s.items() if of_s is not None]
        unknown = self._files - len(known)
        if known and unknown:  # those that wait are as long as the others, until we know better
            known += [sum(known) / len(known)] * unknown
        share = min(1.0, heard_s / sum(known)) if sum(known) else 0.0
        bar = "█" * round(share * _BAR_CELLS)
        speed = f"{heard_s / took_s:.1f}× real time" if took_s > 0 else ""
        files = f", {self._done} of {self._files} files" if self._files > 1 else ""
        return f"{bar:░<{_BAR_CELLS}} {share:4.0%}  {_clock(heard_s)}, {speed}{files}"

    def _draw(self) -> None:
        now = time.monotonic()
        if self._seen and now - self._drawn_at >= _REDRAW_S:
            self._drawn_at = now
            self._stream.write(f"\r{self.text(now - self._started)}\x1b[K")
            self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
