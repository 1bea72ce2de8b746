"""The command line: ``rtc-server serve`` and its helpers. Data to stdout, logs to stderr."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import segno

from rtc_server import __version__, addresses, auth, config, hardware, turn_cli
from rtc_server.app import Server, serve
from rtc_server.check import report
from rtc_server.config import Settings
from rtc_server.errors import ConfigError, StartupError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 for a server that cannot start or a check that fails, 2 for a wrong command line."""
    arguments = _parser().parse_args(argv)
    try:
        match arguments.command:
            case "auth-key":
                return _auth_key(arguments)
            case "auth-token":
                return _auth_token(arguments)
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
    _add_auth_commands(commands)
    return parser


def _add_auth_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    key = commands.add_parser(
        "auth-key",
        help="make a key for --auth",
        description="Make a new key. It is shown once; the lines for the file of --auth have only its hash.",
    )
    key.add_argument("--name", required=True, help="whose key it is")
    token = commands.add_parser(
        "auth-token",
        help="sign a short-lived token, to try them out",
        description="Sign a token with the secret of the [jwt] table, which must be of HS256, HS384 or HS512.",
    )
    token.add_argument("--auth", metavar="FILE", help=f"the file of keys and tokens (or {config.ENV_PREFIX}AUTH)")
    token.add_argument("--sub", help="who it is for")
    token.add_argument("--ttl-s", type=_positive, default=600.0, help="seconds until it expires (default: 600)")
    for command in (key, token):
        command.add_argument("--services", type=_names, help="what it is good for, as echo,moshi (default: everything)")
        command.add_argument("--max-session-s", type=_positive, help="seconds after which its sessions end")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _positive(text: str) -> float:
    value = float(text)
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _auth_key(arguments: argparse.Namespace) -> int:
    key = auth.new_key()
    print(f"The key, which is not kept anywhere: give it to {arguments.name} on a way that nobody reads.\n")
    print(f"  {key}\n")
    print("For the file of --auth:\n")
    print("[[keys]]")
    print(f"name = {_toml(arguments.name)}")
    print(f'hash = "{auth.hash_of(key)}"')
    if arguments.services is not None:
        print(f"services = {_toml(arguments.services)}")
    if arguments.max_session_s is not None:
        print(f"max_session_s = {arguments.max_session_s:g}")
    return 0


def _toml(value: str | list[str]) -> str:
    """As TOML writes it, which is as JSON does, but for surrogates and for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _auth_token(arguments: argparse.Namespace) -> int:
    """The token alone goes to stdout, so that a script can take it."""
    path = config.from_arguments(arguments).auth
    if not path:
        raise ConfigError("Which file has the secret?", hint="--auth FILE names it.")
    rules = auth.load(Path(path)).tokens
    if rules is None:
        raise ConfigError(f"{path} has no [jwt] table.", hint="It says how tokens are signed, and for whom.")
    print(
        auth.sign_token(rules, time.time(), arguments.ttl_s, arguments.sub, arguments.services, arguments.max_session_s)
    )
    return 0


def _serve(settings: Settings) -> int:
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
    here, others = _urls(server)
    print(f"\n  Open {here} in a browser and talk.")
    if others is not None:
        print(f"  From a phone or another machine: {others}")
        if server.certificate is None:
            print("  There, browsers keep the microphone from pages without HTTPS. For a trial: --tls self-signed")
        else:
            _print_qr_code(others)
    if server.certificate is not None and server.certificate.self_made:
        print(
            "\n  Your browser will warn that the connection is not private. That is to be expected: this machine made"
        )
        print(
            "  its certificate itself, so nobody else vouches for it. Choose 'Advanced' and go on to the page (iPhone:"
        )
        print("  'Show Details', 'visit this website'). It asks once on each device. To be sure, compare the SHA-256:")
        print(f"  {server.certificate.sha256()}")
    print()
    for engine in server.engines.values():
        if engine.info is not None:
            print(f"  service {engine.service}: {engine.info.name} on {engine.info.device}, {engine.info.slots} slots")
    if server.registry.default_service == "echo":
        print("\n  No speech model is loaded: you hear yourself. With a CUDA device:")
        print(f'    make serve ARGS="--model {config.DEFAULT_MODEL}"')
    print(flush=True)


def _urls(server: Server) -> tuple[str, str | None]:
    """For a browser on this machine, and for those of others, where they can reach it."""
    host = server.settings.host
    if addresses.is_loopback(host):
        # localhost may be ::1 first: an unusual address is named as it is.
        return _url(server, "localhost" if host in ("127.0.0.1", "::1") else host), None
    if host not in ("0.0.0.0", "::", ""):
        return _url(server, host), _url(server, host)
    return _url(server, "localhost"), next((_url(server, name) for name in _outside_names(server)), None)


def _outside_names(server: Server) -> list[str]:
    """What others may call this machine, the best first: whom a bought certificate is for, else its own address."""
    certificate = server.certificate
    if certificate is not None and not certificate.self_made:
        return [name for name in certificate.names() if "*" not in name]
    primary = hardware.primary_address()
    return [] if primary is None else [primary]


def _url(server: Server, host: str) -> str:
    scheme, usual = ("http", 80) if server.certificate is None else ("https", 443)
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if server.port == usual else f"{scheme}://{name}:{server.port}"


def _print_qr_code(url: str) -> None:
    """Where somebody sees it: at a terminal that has the characters."""
    if not sys.stdout.isatty():
        return
    drawn = io.StringIO()
    segno.make(url, error="m").terminal(drawn, compact=True)
    # White blocks on black, whatever the terminal's colours are.
    lines = [f"  \x1b[97;40m{line}\x1b[0m" for line in drawn.getvalue().splitlines()]
    try:
        print("\n" + "\n".join(lines))
    except UnicodeEncodeError:
        return


def _check(settings: Settings) -> int:
    text, can_run = report(settings)
    print(text)
    return 0 if can_run else 1


if __name__ == "__main__":
    sys.exit(main())
