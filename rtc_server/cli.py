"""The command line: ``rtc-server serve`` and its helpers. Data to stdout, logs to stderr."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from rtc_server import __version__, auth_cli, config, turn_cli
from rtc_server.announce import announce
from rtc_server.app import serve
from rtc_server.check import report
from rtc_server.config import Settings
from rtc_server.errors import StartupError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 for a server that cannot start or a check that fails, 2 for a wrong command line."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command in auth_cli.COMMANDS:
            return auth_cli.run(arguments)
        settings = config.from_arguments(arguments)
        _configure_logging(settings)
        if arguments.command in turn_cli.COMMANDS:
            return turn_cli.run(settings, arguments)
        return _check(settings) if arguments.command == "check" else _serve(settings)
    except StartupError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1


def _configure_logging(settings: Settings) -> None:
    level = settings.log_level.upper()
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if level != "DEBUG":
        # At INFO they log the addresses of peers, and of ours.
        for name in ("aioice", "aiortc"):
            logging.getLogger(name).setLevel(logging.WARNING)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rtc-server", description="A WebRTC real-time media server for full-duplex speech models."
    )
    parser.add_argument("--version", action="version", version=f"rtc-server {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("serve", "start the server"), ("check", "say what this machine can run")):
        command = commands.add_parser(
            name,
            help=text,
            allow_abbrev=False,  # --turn-secret would pass for --turn-secret-file
            description=f"{text[0].upper()}{text[1:]}. Each option can also be set in the environment: "
            f"--log-level as {config.ENV_PREFIX}LOG_LEVEL.",
        )
        config.add_arguments(command)
    turn_cli.add_to(commands)
    auth_cli.add_to(commands)
    return parser


def _serve(settings: Settings) -> int:
    run = asyncio.run
    if settings.uvloop:
        try:
            import uvloop  # noqa: PLC0415 - not on every platform
        except ImportError:
            logging.getLogger(__name__).info("uvloop is not installed: running without it")
        else:
            run = uvloop.run
    run(serve(settings, announce))
    return 0


def _check(settings: Settings) -> int:
    text, can_run = report(settings)
    print(text)
    return 0 if can_run else 1


if __name__ == "__main__":
    sys.exit(main())
