"""``rtc-server transcribe``: transcribes files, as many at a time as the engine has slots.

Transcripts to standard output or into files, everything else to standard error: a bar where that is a terminal, and
what went wrong. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import math
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, TextIO

from rtc_server.config import Settings
from rtc_server.decoding.reader import Decoders
from rtc_server.engine.client import EngineClient
from rtc_server.errors import (
    ConfigError,
    EngineFailed,
    EngineUnavailable,
    FileUnreadable,
    NotAudio,
    ServerError,
    TooLarge,
)
from rtc_server.metrics import Metrics
from rtc_server.services import make_transcriber
from rtc_server.transcription.captions import CaptionFormat, render
from rtc_server.transcription.file import Progress, transcribe

SETTINGS: Final = (
    *("stt", "stt_slots", "device", "dtype", "quantize", "kv_dtype", "threads", "engine"),
    *("turn_ms", "pause_threshold", "log_level"),
)
"""What can be set of it."""
_RESTART_S: Final = 60.0
"""For which files wait for an engine that is being restarted."""
_POLL_S: Final = 0.2
_BAR_CELLS: Final = 24
_REDRAW_S: Final = 0.1
_PLAIN: Final = frozenset({"txt", "srt"})
_HINTS: Final[dict[type[ServerError], str]] = {
    NotAudio: "Listen to it with another program: it may be empty, broken, or of a kind that this one does not read.",
    FileUnreadable: "Convert it with another program, and try what that makes of it.",
    TooLarge: "Cut it into parts.",
    EngineFailed: "Its log is above. Try again with fewer at a time: --stt-slots.",
    EngineUnavailable: "Its log is above. Try again with fewer at a time: --stt-slots.",
}


class _FileError(Exception):
    """One file cannot be transcribed, or its transcript not be written."""

    def __init__(self, path: Path, what: str, hint: str | None) -> None:
        self.hint = hint
        super().__init__(f"{path}: {what}")


async def run(settings: Settings, files: Sequence[Path], form: CaptionFormat, output: Path | None) -> int:
    """Exit status: 0, or 1 if any file failed. Raises ConfigError, ModelLoadError. When cancelled, transcripts that are
    written are whole."""
    targets = _targets(files, form, output)
    engine = make_transcriber(settings, Metrics(), streams=len(files))
    missing = [error for error in map(_missing, files) if error is not None]
    if len(missing) == len(files):  # a model takes its time to load, and would do nothing
        for error in missing:
            _tell(error)
        return 1
    decoders = Decoders()
    engine.start()
    try:
        await engine.wait_settled()
        assert engine.info is not None
        with _Bar(len(files), sys.stderr).shown() as bar:
            batch = _Batch(engine, decoders, settings, form, bar, iter(targets.items()))
            async with asyncio.TaskGroup() as group:
                for number in range(min(engine.info.slots, len(files))):
                    group.create_task(batch.work(), name=f"transcribe-{number}")
        return 1 if batch.failed else 0
    finally:
        await engine.close()
        await decoders.close()


def _missing(path: Path) -> _FileError | None:
    """Find what is wrong with a file without opening it: a pipe can be read only once."""
    try:
        number = errno.EISDIR if path.is_dir() else 0 if os.access(path, os.R_OK) else errno.EACCES
        path.stat()
    except OSError as error:
        number = error.errno or errno.EIO
    return _FileError(path, f"cannot be read: {os.strerror(number)}.", None) if number else None


def _tell(error: _FileError) -> None:
    print(f"error: {error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def _targets(files: Sequence[Path], form: CaptionFormat, output: Path | None) -> dict[Path, Path | None]:
    """Choose the path of each file's transcript; None is standard output. Raises ConfigError."""
    if output is not None and not output.is_dir():
        raise ConfigError(f"{output} is not a directory.", hint="Make it first: --output takes one that exists.")
    if output is None and len(files) == 1:
        return {files[0]: None}
    targets: dict[Path, Path | None] = {
        path: (path.parent if output is None else output) / f"{path.name}.{form}" for path in files
    }
    if len(set(targets.values())) < len(files):
        raise ConfigError("Two files would have their transcript in the same place.", hint="Leave one of them out.")
    return targets


@dataclass
class _Batch:
    """The files of one run, taken by as many workers as there are slots."""

    engine: EngineClient
    decoders: Decoders
    settings: Settings
    form: CaptionFormat
    bar: _Bar
    waiting: Iterator[tuple[Path, Path | None]]
    failed: int = field(default=0, init=False)

    async def work(self) -> None:
        for path, target in self.waiting:
            try:
                await self._one(path, target)
            except _FileError as error:
                self.failed += 1
                self.bar.clear()
                _tell(error)
            self.bar.done(path)

    async def _one(self, path: Path, target: Path | None) -> None:
        async def tell(progress: Progress) -> None:
            self.bar.show(path, progress)

        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(_opened(path))
            source = stack.enter_context(await asyncio.to_thread(_regular, path, opened))
            try:
                await _until_ready(self.engine)
                transcript = await transcribe(self.engine, self.decoders, source, self.settings, tell)
            except ServerError as error:
                raise _FileError(path, error.message, _HINTS.get(type(error))) from None
        self.bar.clear()
        for warning in transcript.warnings:
            print(f"warning: {path}: {warning.message}", file=sys.stderr)
        if self.form in _PLAIN:  # it is said, and these have no place for it but among the words
            transcript = dataclasses.replace(transcript, warnings=())
        _write(render(transcript, self.form), target)


def _write(text: str, target: Path | None) -> None:
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
        raise _FileError(
            target or Path("standard output"), f"cannot be written: {error.strerror}.", "Name a place with --output."
        ) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise _FileError(path, f"cannot be read: {error.strerror}.", None) from None
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
        raise _FileError(path, f"cannot be read: {error.strerror}.", None) from None
    return kept


async def _until_ready(engine: EngineClient) -> None:
    """Raises EngineUnavailable when it takes too long."""
    deadline = time.monotonic() + _RESTART_S
    while not engine.ready:
        if time.monotonic() > deadline:
            raise EngineUnavailable
        await asyncio.sleep(_POLL_S)


class _Bar:
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
    def shown(self) -> Iterator[_Bar]:
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
