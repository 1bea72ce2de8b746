"""The command line: ``serve``, ``check``, and what goes with a TURN server. Data to stdout, logs to stderr."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rtc_server import __version__, config, coturn
from rtc_server.app import Server, serve
from rtc_server.check import report
from rtc_server.config import Settings
from rtc_server.errors import ConfigError, StartupError
from rtc_server.turn import IceServers


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 for a server that cannot start or a check that fails, 2 for a wrong command line."""
    arguments = _parser().parse_args(argv)
    try:
        settings = config.from_arguments(arguments)
        _configure_logging(settings)
        run: Callable[[Settings, argparse.Namespace], int] = arguments.run
        return run(settings, arguments)
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
    for name, text, run in (
        ("serve", "start the server", _serve),
        ("check", "say what this machine can run", _check),
        ("turn", "start coturn as a relay for the server's clients", _turn),
        ("turn-config", "print coturn's configuration, or write it", _turn_config),
        ("turn-credentials", "print what a client is given for the TURN server", _turn_credentials),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}. Each option can also be set in the environment: "
            f"--log-level as {config.ENV_PREFIX}LOG_LEVEL.",
        )
        command.set_defaults(run=run)
        if run in (_turn, _turn_config):
            config.add_arguments(command, config.RelaySettings)
        if run is _turn_config:
            command.add_argument("--output", metavar="FILE", help="write it there, readable by its owner alone")
        if run is _turn_credentials:
            command.add_argument("--user", default="debug", help="whose credentials (default: %(default)s)")
        config.add_arguments(command)
    return parser


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    run = asyncio.run
    if settings.uvloop:
        try:
            import uvloop  # noqa: PLC0415 - not on every platform
        except ImportError:
            logging.getLogger(__name__).info("uvloop is not installed: running without it")
        else:
            run = uvloop.run
    run(serve(settings, _announce))
    return 0


def _announce(server: Server) -> None:
    """Where the server is, which model runs, and on what."""
    host = server.settings.host
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1", "::1") else host
    print(f"\n  Open http://{shown}:{server.port} in a browser and talk.\n")
    for engine in server.engines.values():
        if engine.info is not None:
            print(f"  service {engine.service}: {engine.info.name} on {engine.info.device}, {engine.info.slots} slots")
    if server.registry.default_service == "echo":
        print("\n  No speech model is loaded: you hear yourself. With a CUDA device:")
        print(f'    make serve ARGS="--model {config.DEFAULT_MODEL}"')
    print(flush=True)


def _check(settings: Settings, _: argparse.Namespace) -> int:
    text, can_run = report(settings)
    print(text)
    return 0 if can_run else 1


def _turn(settings: Settings, arguments: argparse.Namespace) -> int:
    relay = config.relay_from_arguments(arguments)
    secret, option = coturn.secret_or_new(settings)
    text = coturn.render(settings, relay, secret)
    urls = ",".join(coturn.urls(settings, relay))
    print("\n  A relay for clients in other networks. In another terminal:\n")
    print(f'    make serve ARGS="--turn-urls {urls} {option}"\n', flush=True)
    coturn.start(text)


def _turn_config(settings: Settings, arguments: argparse.Namespace) -> int:
    relay = config.relay_from_arguments(arguments)
    if arguments.output is None:
        print(coturn.render_hidden(settings, relay), end="")
        return 0
    secret, _ = coturn.secret_or_new(settings)
    coturn.write_private(Path(arguments.output), coturn.render(settings, relay, secret))
    return 0


def _turn_credentials(settings: Settings, arguments: argparse.Namespace) -> int:
    servers = IceServers(settings)
    if servers.expires_in_s is None:
        raise ConfigError("No TURN server is set.", hint="--turn-urls turn:HOST:3478 --turn-secret-file turn/.secret")
    credentials = servers.credentials(arguments.user, time.time())
    for url in servers.urls:
        print(f"url         {url}")
    print(f"username    {credentials.username}")
    print(f"credential  {credentials.password}")
    print(f"expires     {datetime.fromtimestamp(credentials.expires_at, UTC):%Y-%m-%d %H:%M:%S} UTC")
    return 0


if __name__ == "__main__":
    sys.exit(main())
