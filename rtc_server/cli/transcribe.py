"""``rtc-server transcribe``: transcribes files, as many at a time as the engine has slots.

Transcripts to standard output or into files, everything else to standard error: a bar where that is a terminal, and
what went wrong. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rtc_server.cli.recordings import Bar, FileError, explain, missing_file, transcribed, write_text
from rtc_server.config import Settings
from rtc_server.decoding.reader import Decoders
from rtc_server.engine.client import EngineClient
from rtc_server.errors import ConfigError
from rtc_server.metrics import Metrics
from rtc_server.services import make_transcriber
from rtc_server.transcription.captions import CaptionFormat, render

SETTINGS: Final = (
    *("stt", "stt_slots", "device", "dtype", "quantize", "kv_dtype", "threads", "engine"),
    *("turn_ms", "pause_threshold", "log_level"),
)
"""What can be set of it."""
_PLAIN: Final = frozenset({"txt", "srt"})


async def run(settings: Settings, files: Sequence[Path], form: CaptionFormat, output: Path | None) -> int:
    """Exit status: 0, or 1 if any file failed. Raises ConfigError, ModelLoadError. When cancelled, transcripts that are
    written are whole."""
    targets = _targets(files, form, output)
    engine = make_transcriber(settings, Metrics(), streams=len(files))
    missing = [error for error in map(missing_file, files) if error is not None]
    if len(missing) == len(files):  # a model takes its time to load, and would do nothing
        for error in missing:
            explain(error)
        return 1
    decoders = Decoders()
    engine.start()
    try:
        await engine.wait_settled()
        assert engine.info is not None
        with Bar(len(files), sys.stderr).shown() as bar:
            batch = _Batch(engine, decoders, settings, form, bar, iter(targets.items()))
            async with asyncio.TaskGroup() as group:
                for number in range(min(engine.info.slots, len(files))):
                    group.create_task(batch.work(), name=f"transcribe-{number}")
        return 1 if batch.failed else 0
    finally:
        await engine.close()
        await decoders.close()


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
    bar: Bar
    waiting: Iterator[tuple[Path, Path | None]]
    failed: int = field(default=0, init=False)

    async def work(self) -> None:
        for path, target in self.waiting:
            try:
                await self._one(path, target)
            except FileError as error:
                self.failed += 1
                self.bar.clear()
                explain(error)
            self.bar.done(path)

    async def _one(self, path: Path, target: Path | None) -> None:
        transcript = await transcribed(path, self.engine, self.decoders, self.settings, self.bar)
        if self.form in _PLAIN:  # it is said, and these have no place for it but among the words
            transcript = dataclasses.replace(transcript, warnings=())
        write_text(render(transcript, self.form), target)
