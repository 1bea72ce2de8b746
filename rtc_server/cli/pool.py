"""``rtc-server pool``: the engines of a cluster, as many as are wanted, for media nodes that know only their pool."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from pathlib import Path
from typing import Final

from rtc_server import config
from rtc_server.cluster.fleet import Fleet
from rtc_server.cluster.pool import Pool
from rtc_server.cluster.terms import terms_of
from rtc_server.config import PoolSettings, Settings
from rtc_server.engine.cluster_key import HINT, ClusterKey
from rtc_server.errors import ConfigError
from rtc_server.services import SERVICES
from rtc_server.system import descriptors
from rtc_server.usage import invocation
from rtc_server.usage.command_line import Parser

logger = logging.getLogger(__name__)

_TEXT: Final = "keep the engines that media servers on other machines use"
_SHARED: Final = ("cluster_key", "log_level")


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "pool",
        help=_TEXT,
        usage="%(prog)s [OPTION ...]",
        description=config.describe(_TEXT, "pool_listen"),
        elsewhere=config.SECRETS_ELSEWHERE,
    )
    config.add_arguments(command, PoolSettings)
    config.add_arguments(command, only=_SHARED)


def run(settings: Settings, own: PoolSettings) -> int:
    """Until a signal comes. The exit status. Raises ConfigError."""
    if not settings.cluster_key:
        raise ConfigError("A pool needs --cluster-key, the secret of those who may use it.", hint=HINT)
    key = ClusterKey.read(Path(settings.cluster_key))
    terms = terms_of(own, SERVICES)
    descriptors.raise_limit()  # a stranger's connection takes one for as long as a handshake may last
    logger.info("engines are started by others: of %s", ", ".join(terms))
    asyncio.run(_until_signal(Fleet({}), own, key))
    return 0


async def _until_signal(fleet: Fleet, own: PoolSettings, key: ClusterKey) -> None:
    pool = Pool(own.pool_listen, key, fleet)
    running = asyncio.create_task(pool.run(), name="pool")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    _announce(pool.address, own.services)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _announce(address: str, services: tuple[str, ...]) -> None:
    reached = address.replace("0.0.0.0", "HOST")  # noqa: S104 - to be replaced by its reader
    named = ("--pool-services", ",".join(services)) if services != ("dialogue",) else ()
    command = invocation.command("serve", "--pool", reached, *named, "--cluster-key", "FILE")
    print(f"\n  A pool at {address}. On a media server:\n\n    {command}\n", flush=True)
