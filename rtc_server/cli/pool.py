"""``rtc-server pool``: the engines of a cluster, as many as are wanted, for media nodes that know only their pool."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rtc_server import config
from rtc_server.bundled import directory_of
from rtc_server.cli.engine import SHARED
from rtc_server.cluster.fleet import Fleet
from rtc_server.cluster.host import HostSpec
from rtc_server.cluster.pool import Pool
from rtc_server.cluster.ray_launcher import Placement, RayLauncher
from rtc_server.cluster.terms import terms_of
from rtc_server.config import PoolSettings, Settings
from rtc_server.engine.cluster_key import HINT, ClusterKey
from rtc_server.errors import ConfigError
from rtc_server.services import ECHO, SERVICES, TRANSCRIBE, pool_address
from rtc_server.system import descriptors
from rtc_server.usage import invocation
from rtc_server.usage.command_line import Parser

logger = logging.getLogger(__name__)

_TEXT: Final = "keep the engines that media servers on other machines use"
_DRAIN_S: Final = 3600
"""Of engines: only those that are not used are stopped, and one that was opened just then is not cut short."""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "pool",
        help=_TEXT,
        usage="%(prog)s [OPTION ...]",
        description=config.describe(_TEXT, "pool_listen"),
        elsewhere=config.SECRETS_ELSEWHERE,
    )
    config.add_arguments(command, PoolSettings)
    config.add_arguments(command, only=[name for name in SHARED if name != "drain_s"])


def _edition() -> int:
    """With which no pool before this one began."""
    return 1 + secrets.randbits(40)


def run(settings: Settings, own: PoolSettings) -> int:
    """Until a signal comes. The exit status. Raises ConfigError."""
    if not settings.cluster_key:
        raise ConfigError("A pool needs --cluster-key, the secret of those who may use it.", hint=HINT)
    key = ClusterKey.read(Path(settings.cluster_key))
    terms = terms_of(own, SERVICES)
    address = pool_address(settings)
    descriptors.raise_limit()  # a stranger's connection takes one for as long as a handshake may last
    if not own.ray_address:
        asyncio.run(_until_signal(lambda: Pool(own.pool_listen, key, Fleet({}, edition=_edition())), own.services))
        return 0
    launcher = RayLauncher(own.ray_address, key)

    def make_pool() -> Pool:
        pool = Pool(own.pool_listen, key, Fleet(terms, edition=_edition()), launcher)
        reached = address or reached_at(pool.address, launcher.address)
        launcher.begin(lambda service: placement(settings, own, service, reached))
        return pool

    try:
        asyncio.run(_until_signal(make_pool, own.services))
    finally:
        launcher.close()
    return 0


def reached_at(listens: str, own: str) -> str:
    """The address of a pool that ``listens`` there, on a machine that others reach at ``own``."""
    host, _, port = listens.rpartition(":")
    return f"{own}:{port}" if host in ("0.0.0.0", "[::]") else listens  # noqa: S104 - to be replaced


def placement(settings: Settings, own: PoolSettings, service: str, pool: str) -> Placement:
    """An engine of ``service``: the command that runs it, with what is set of its model, and the GPUs that it gets."""
    command = [
        *("rtc_server.cli.hosted", "engine", "--engine-listen", "0.0.0.0:0", "--engine-service", service),
        *("--pool", pool, "--cluster-key", str(Path(settings.cluster_key).absolute()), "--drain-s", str(_DRAIN_S)),
        *_model_options(settings),
    ]
    gpus = own.gpus if own.gpus is not None else 0.0 if _on_cpu(settings, service) else 1.0
    return Placement(HostSpec(service, tuple(command), pool, str(Path(settings.cluster_key).absolute())), gpus)


def _on_cpu(settings: Settings, service: str) -> bool:
    model = {ECHO: ECHO, TRANSCRIBE: settings.stt}.get(service, settings.model)
    return settings.device == "cpu" or model == ECHO or directory_of(model) is not None


def _model_options(settings: Settings) -> list[str]:
    """What is set of the model and differs from what an engine assumes."""
    options = []
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if field.name not in SHARED or field.name in ("pool", "cluster_key", "drain_s") or value == field.default:
            continue
        name = config.option(field.name)
        if isinstance(value, bool):
            options.append(name if value else name.replace("--", "--no-", 1))
        else:
            options += [name, str(value)]
    return options


async def _until_signal(make_pool: Callable[[], Pool], services: tuple[str, ...]) -> None:
    pool = make_pool()
    running = asyncio.create_task(pool.run(), name="pool")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    _announce(pool.address, services)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _announce(address: str, services: tuple[str, ...]) -> None:
    reached = address.replace("0.0.0.0", "HOST")  # noqa: S104 - to be replaced by its reader
    named = ("--pool-services", ",".join(services)) if services != ("dialogue",) else ()
    command = invocation.command("serve", "--pool", reached, *named, "--cluster-key", "FILE")
    print(f"\n  A pool at {address}. On a media server:\n\n    {command}\n", flush=True)
