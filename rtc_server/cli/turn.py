"""``rtc-server turn``, ``turn-config`` and ``turn-credentials``: run a TURN server beside this one."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rtc_server import config
from rtc_server.config import RelaySettings, Settings
from rtc_server.errors import ConfigError
from rtc_server.turn import coturn
from rtc_server.turn.ice_servers import IceServers
from rtc_server.usage import invocation
from rtc_server.usage.command_line import Parser

COMMANDS: Final = {
    "turn": "start coturn as a relay for the server's clients",
    "turn-config": "print coturn's configuration without its secret, or write it",
    "turn-credentials": "print what a client is given for the TURN server",
}


_RELAY: Final = ("public_ip", "interfaces", "turn_secret_file", "log_level")
"""What coturn has in common with the server."""
_CREDENTIALS: Final = ("stun_urls", "turn_urls", "turn_secret_file", "turn_ttl_s", "log_level")


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    for name, text in COMMANDS.items():
        credentials = name == "turn-credentials"
        example = "turn_urls" if credentials else "turn_port"
        command = commands.add_parser(
            name,
            help=text,
            usage="%(prog)s [OPTION ...]",
            description=config.describe(text, example),
            elsewhere=config.SECRETS_ELSEWHERE,
        )
        if credentials:
            command.add_argument("--user", default="debug", help="whose credentials (default: %(default)s)")
        else:
            config.add_arguments(command, RelaySettings)
        if name == "turn-config":
            command.add_argument("--output", metavar="FILE", help="write it there, readable by its owner alone")
        config.add_arguments(command, only=_CREDENTIALS if credentials else _RELAY)


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """The exit status. Raises ConfigError."""
    if arguments.command == "turn-credentials":
        return _show_credentials(settings, arguments.user)
    relay = config.relay_from_arguments(arguments)
    if arguments.command == "turn":
        return _start(settings, relay)
    return _configure(settings, relay, arguments.output)


def _start(settings: Settings, relay: RelaySettings) -> int:
    coturn.require_free_ports(relay)
    secret, option = coturn.secret_or_new(settings)
    text = coturn.render(settings, relay, secret)
    urls = ",".join(coturn.urls(settings, relay))
    print("\n  A relay for clients in other networks. In another terminal:\n")
    print(f"    {invocation.command('serve', '--turn-urls', urls, *option)}\n", flush=True)
    return coturn.run(text)


def _configure(settings: Settings, relay: RelaySettings, output: str | None) -> int:
    if output is None:
        print(coturn.render_hidden(settings, relay), end="")
        return 0
    secret, _ = coturn.secret_or_new(settings)
    coturn.write_private(Path(output), coturn.render(settings, relay, secret))
    return 0


def _show_credentials(settings: Settings, user: str) -> int:
    servers = IceServers(settings)
    if servers.expires_in_s is None:
        raise ConfigError("No TURN server is set.", hint="--turn-urls turn:HOST:3478 --turn-secret-file turn/.secret")
    credentials = servers.credentials(user, time.time())
    for url in servers.urls:
        print(f"url         {url}")
    print(f"username    {credentials.username}")
    print(f"credential  {credentials.password}")
    print(f"expires     {datetime.fromtimestamp(credentials.expires_at, UTC):%Y-%m-%d %H:%M:%S} UTC")
    return 0
