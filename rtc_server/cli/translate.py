"""``rtc-server translate``: what is said in a recording, in another language: as text, as subtitles, or spoken.

Text to standard output, speech into a file, everything else to standard error. Knows no HTTP.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, get_args

from rtc_server import audio, config
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.cli import transcribe
from rtc_server.cli.recordings import Bar, FileError, explain, missing_file, transcribed, write_text
from rtc_server.config import Settings
from rtc_server.decoding.reader import Decoders
from rtc_server.engine.client import EngineClient
from rtc_server.errors import ConfigError, ServerError
from rtc_server.metrics import Metrics
from rtc_server.services import make_transcriber, make_translator
from rtc_server.transcription.captions import CaptionFormat, render
from rtc_server.transcription.translated import Rendered, as_transcript, passages, translate
from rtc_server.translation.client import Translator
from rtc_server.translation.languages import name_of, tag_of
from rtc_server.usage.command_line import Parser

NAME: Final = "translate"
_SETTINGS: Final = (*transcribe.SETTINGS, "translate", "pocket_tts")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a file. ``source``: None for the one language that the model hears. ``speech``: where it goes
    as sound; None for nowhere."""

    path: Path
    source: str | None
    target: str
    form: CaptionFormat
    speech: Path | None


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        NAME,
        help="say in another language what is said in an audio or video file",
        usage="%(prog)s [OPTION ...] --to LANGUAGE FILE",
        description=config.describe("say in another language what is said in an audio or video file", "log_level"),
        elsewhere=config.SECRETS_ELSEWHERE,
    )
    command.add_argument("file", type=Path, metavar="FILE", help="anything with an audio stream")
    command.add_argument("--to", required=True, metavar="LANGUAGE", help="into which: pt, pt-BR, por, ...")
    command.add_argument(
        "--from", dest="source", metavar="LANGUAGE", help="what is spoken in the file, if the model hears several"
    )
    command.add_argument("--format", choices=get_args(CaptionFormat), default="txt", help="of the text (default: txt)")
    command.add_argument("--speech", type=Path, metavar="WAV", help="speak it into this file, in place of the text")
    config.add_arguments(command, only=_SETTINGS)


def wish_of(arguments: argparse.Namespace) -> Wish:
    """Raises ConfigError."""
    source = None if arguments.source is None else _language(arguments.source, "--from")
    target = _language(arguments.to, "--to")
    if source == target:
        raise ConfigError(f"It is in {name_of(target)} already.", hint="rtc-server transcribe writes it down.")
    if arguments.speech is not None and not arguments.speech.parent.is_dir():
        raise ConfigError(f"{arguments.speech.parent} is not a directory.", hint="Make it first.")
    return Wish(arguments.file, source, target, arguments.format, arguments.speech)


def _language(code: str, option: str) -> str:
    tag = tag_of(code)
    if tag is None:
        raise ConfigError(f"{option}: there is no language {code[:80]!r} here.", hint="As in BCP 47: en, pt, es, ...")
    return tag


async def run(settings: Settings, wish: Wish) -> int:
    """Exit status: 0, or 1 if the file, or a passage of it, could not be translated. Raises ConfigError,
    ModelLoadError. When cancelled, a file of speech is whole or not there."""
    engine = make_transcriber(settings, Metrics(), streams=1)
    translator = make_translator(settings, Metrics())
    if translator is None:
        raise ConfigError("Nothing translates on this machine.", hint="rtc-server check says how to get a translator.")
    missing = missing_file(wish.path)
    if missing is not None:
        explain(missing)
        return 1
    decoders = Decoders()
    engine.start()
    translator.start()
    try:
        await engine.wait_settled()
        await translator.wait_settled()
        source = _source(wish, engine)
        _require_pair(wish, source, translator)
        return await _translate(settings, wish, source, engine, decoders, translator)
    except FileError as error:
        explain(error)
        return 1
    finally:
        await engine.close()
        await translator.close()
        await decoders.close()


def _source(wish: Wish, engine: EngineClient) -> str:
    """The language of the file. Raises ConfigError."""
    assert engine.info is not None
    heard = engine.info.languages
    if wish.source is None:
        if len(heard) != 1:
            known = f", of {', '.join(heard)}" if heard else ""
            raise ConfigError("The model does not tell which language it hears.", hint=f"Say it with --from{known}.")
        return heard[0]
    if heard and wish.source not in heard:
        others = ", ".join(map(name_of, heard))
        raise ConfigError(
            f"The model hears {others}, and not {name_of(wish.source)}.", hint="Name another model with --stt."
        )
    return wish.source


def _require_pair(wish: Wish, source: str, translator: Translator) -> None:
    """Raises ConfigError for what the translator does not know."""
    assert translator.info is not None
    if (source, wish.target) not in translator.info.pairs:
        raise ConfigError(
            f"Nothing translates from {name_of(source)} to {name_of(wish.target)} on this machine.",
            hint="rtc-server check lists the pairs that there are, and says how to get more.",
        )
    if wish.speech is not None and wish.target not in translator.info.speaks:
        raise ConfigError(
            f"There is no voice for {name_of(wish.target)}.", hint="Leave --speech out, or install espeak-ng."
        )


async def _translate(
    settings: Settings, wish: Wish, source: str, engine: EngineClient, decoders: Decoders, translator: Translator
) -> int:
    """Raises FileError."""
    with Bar(1, sys.stderr).shown() as bar:
        transcript = await transcribed(wish.path, engine, decoders, settings, bar)
    rendered: list[Rendered] = []
    with _Speech.into(wish.speech) as speech:

        async def tell(each: Rendered) -> None:
            rendered.append(each)
            if not isinstance(each.outcome, ServerError) and each.outcome.pcm is not None:
                speech.say(each.passage.start_ms, each.outcome.pcm)

        said = passages(transcript)
        await translate(translator, said, source, wish.target, wish.speech is not None, tell)
        speech.finish(transcript.duration_ms)
    if wish.speech is None:
        write_text(render(as_transcript(transcript.duration_ms, rendered), wish.form), None)
    return _report(wish.path, rendered)


def _report(path: Path, rendered: list[Rendered]) -> int:
    """Tell what was not translated; the exit status."""
    errors = [each.outcome for each in rendered if isinstance(each.outcome, ServerError)]
    for code, message in dict.fromkeys((error.code, error.message) for error in errors):
        count = sum(error.code == code for error in errors)
        print(f"error: {path}: {count} of {len(rendered)} passages: {message} ({code})", file=sys.stderr)
    return 1 if errors else 0


class _Speech:
    """A file of speech, each passage of which begins where it was said, or when the one before it has ended. ``file``:
    None for nowhere."""

    def __init__(self, file: wave.Wave_write | None) -> None:
        self._file = file
        self._samples = 0

    @classmethod
    @contextlib.contextmanager
    def into(cls, path: Path | None) -> Iterator[Self]:
        """Whole or not there: what was there before stays if this breaks off. Raises FileError."""
        if path is None:
            yield cls(None)
            return
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as raw, wave.open(raw, "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(MODEL_RATE_HZ)
                yield cls(file)
            part.replace(path)
        except OSError as error:
            raise FileError(path, f"cannot be written: {error.strerror}.", "Name another place.") from None
        finally:
            part.unlink(missing_ok=True)

    def say(self, start_ms: int, pcm: FloatArray) -> None:
        self._wait(start_ms)
        self._write(pcm)

    def finish(self, end_ms: int) -> None:
        """It is as long as the recording, or longer."""
        self._wait(end_ms)

    def _wait(self, until_ms: int) -> None:
        """In silence."""
        while (left := audio.ms_to_samples(until_ms) - self._samples) > 0:
            self._write(audio.silence(min(left, MODEL_RATE_HZ)))

    def _write(self, pcm: FloatArray) -> None:
        if self._file is not None:
            self._file.writeframes(audio.to_int16(pcm).tobytes())
        self._samples += pcm.size
