"""``rtc-server auth-key`` and ``auth-token``: make API keys and tokens."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Final

from rtc_server import config
from rtc_server.access import credentials, keyfile
from rtc_server.errors import ConfigError
from rtc_server.services import ALL_SERVICES
from rtc_server.usage.command_line import Parser
from rtc_server.usage.spelling import did_you_mean

COMMANDS: Final = ("auth-key", "auth-token")


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    key = commands.add_parser(
        "auth-key",
        help="make a key for --auth",
        description="Make a new key. It is shown once; the lines for the file of --auth have only its hash.",
    )
    key.add_argument("--name", required=True, help="whose key it is")
    key.add_argument("--auth", metavar="FILE", help="add the lines to this file, which is made if need be")
    token = commands.add_parser(
        "auth-token",
        help="sign a short-lived token, to try them out",
        description="Sign a token with the secret of the [jwt] table, which must be of HS256, HS384 or HS512.",
    )
    token.add_argument("--auth", metavar="FILE", help=f"the file of keys and tokens (or {config.ENV_PREFIX}AUTH)")
    token.add_argument("--sub", help="who it is for")
    token.add_argument("--ttl-s", type=_positive, default=600.0, help="seconds until it expires (default: 600)")
    example = ",".join(ALL_SERVICES[:2])
    for command in (key, token):
        command.add_argument("--services", type=_names, help=f"what it is good for, as {example} (default: everything)")
        command.add_argument("--max-session-s", type=_positive, help="seconds after which its sessions end")


def run(arguments: argparse.Namespace) -> int:
    """The exit status. Raises ConfigError."""
    return _auth_key(arguments) if arguments.command == "auth-key" else _auth_token(arguments)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ALL_SERVICES:
            known = f"There are: {', '.join(ALL_SERVICES)}"
            raise argparse.ArgumentTypeError(
                f"there is no service {name[:80]!r}.{did_you_mean(name, ALL_SERVICES)} {known}"
            )
    if not names:
        raise argparse.ArgumentTypeError(f"it names none of the services: {', '.join(ALL_SERVICES)}")
    return names


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not a number") from None
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _auth_key(arguments: argparse.Namespace) -> int:
    key = credentials.new_key()
    lines = ["[[keys]]", f"name = {_toml(arguments.name)}", f'hash = "{credentials.hash_of(key)}"']
    if arguments.services is not None:
        lines.append(f"services = {_toml(arguments.services)}")
    if arguments.max_session_s is not None:
        lines.append(f"max_session_s = {arguments.max_session_s:g}")
    if arguments.auth is not None:
        keyfile.add(Path(arguments.auth), "\n".join(lines) + "\n")
    print(f"The key, which is not kept anywhere: give it to {arguments.name} on a way that no one else reads.\n")
    print(f"  {key}\n")
    if arguments.auth is None:
        print("For the file of --auth:\n")
        print("\n".join(lines))
    else:
        print(f"Its hash is in {arguments.auth}, which a server that runs reads again on SIGHUP.")
    return 0


def _toml(value: str | list[str]) -> str:
    """As TOML writes it, which is as JSON does, but for surrogates and for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _auth_token(arguments: argparse.Namespace) -> int:
    """The token alone goes to stdout, so that a script can take it."""
    path = config.from_arguments(arguments).auth
    if not path:
        raise ConfigError("Which file has the secret?", hint="--auth FILE names it.")
    rules = keyfile.load(Path(path)).tokens
    if rules is None:
        raise ConfigError(f"{path} has no [jwt] table.", hint="It says how tokens are signed, and for whom.")
    print(
        credentials.sign_token(
            rules, time.time(), arguments.ttl_s, arguments.sub, arguments.services, arguments.max_session_s
        )
    )
    return 0
