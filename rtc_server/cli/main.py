"""The command line: ``rtc-server serve`` and its helpers. Data to stdout, logs to stderr."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, get_args

from rtc_server import __version__, config
from rtc_server.app import serve
from rtc_server.cli import auth, engine, pool, process_group, running, transcribe, translate, turn
from rtc_server.cli.announce import announce
from rtc_server.cli.check import report
from rtc_server.cli.stoppable import StoppedError, until_stopped
from rtc_server.config import Settings
from rtc_server.errors import StartupError
from rtc_server.transcription.captions import CaptionFormat
from rtc_server.usage.command_line import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 for a server that cannot start, a check that fails or a file that cannot be transcribed, 2 for
    a wrong command line."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except StartupError as error:
        running.explain(error)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command in auth.COMMANDS:
        return auth.run(arguments)
    if arguments.command in turn.COMMANDS:
        return turn.run(_settings(arguments), arguments)
    if arguments.command == "transcribe":
        settings = _settings(arguments, log_level="warning")
        return _until_stopped(transcribe.run(settings, arguments.files, arguments.format, arguments.output))
    if arguments.command == translate.NAME:
        return _until_stopped(translate.run(_settings(arguments, log_level="warning"), translate.wish_of(arguments)))
    return _run_on_settings(arguments.command, _settings(arguments), arguments)


def _run_on_settings(command: str, settings: Settings, arguments: argparse.Namespace) -> int:
    match command:
        case "engine":
            return engine.run(settings, config.engine_from_arguments(arguments))
        case "pool":
            return pool.run(settings, config.pool_from_arguments(arguments))
        case "check":
            return _check(settings)
        case _:
            return _serve(settings)


def _settings(arguments: argparse.Namespace, **defaults: Any) -> Settings:
    settings = config.from_arguments(arguments, **defaults)
    running.configure_logging(settings)
    return settings


def _parser() -> Parser:
    parser = Parser(prog="rtc-server", description="A WebRTC real-time media server for full-duplex speech models.")
    parser.add_argument("--version", action="version", version=f"rtc-server {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, only in (
        ("serve", "start the server", None),
        ("check", "say what this machine can run", None),
        ("transcribe", "write down what is said in audio and video files", transcribe.SETTINGS),
    ):
        command = commands.add_parser(
            name,
            help=text,
            usage=f"%(prog)s [OPTION ...]{' FILE ...' if name == 'transcribe' else ''}",
            description=config.describe(text, "log_level"),
            elsewhere=config.SECRETS_ELSEWHERE,
        )
        if name == "transcribe":
            _add_file_arguments(command)
        config.add_arguments(command, only=only)
    translate.add_to(commands)
    engine.add_to(commands)
    pool.add_to(commands)
    turn.add_to(commands)
    auth.add_to(commands)
    return parser


def _add_file_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="anything with an audio stream")
    formats = get_args(CaptionFormat)
    command.add_argument("--format", choices=formats, default="txt", help="of the transcripts (default: txt)")
    command.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where they go, as FILE.FORMAT (default: one to standard output, several beside the files)",
    )


def _serve(settings: Settings) -> int:
    work = serve(settings, announce) if process_group.count_of(settings) == 1 else process_group.serve(settings)
    running.run(work, settings)
    return 0


def _until_stopped(work: Coroutine[Any, Any, int]) -> int:
    """Work on files, until a signal says to stop. Exit status."""
    try:
        return asyncio.run(until_stopped(work))
    except StoppedError as stopped:
        with contextlib.suppress(OSError):  # the terminal may be what was closed
            print("error: stopped before the end", file=sys.stderr)
        return stopped.status


def _check(settings: Settings) -> int:
    text, can_run = report(settings)
    print(text)
    return 0 if can_run else 1


if __name__ == "__main__":
    sys.exit(main())
