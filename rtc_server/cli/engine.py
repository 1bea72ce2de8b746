"""``rtc-server engine``: one model without a server, for media nodes on other machines."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rtc_server import config
from rtc_server.cluster.announcer import Announcer
from rtc_server.config import EngineSettings, Settings
from rtc_server.engine.cluster_key import HINT, ClusterKey
from rtc_server.engine.factory import keep_for_life, make_model
from rtc_server.engine.messages import Ready
from rtc_server.engine.served import ServedPort, drain_at_signals, serve_nodes
from rtc_server.errors import ConfigError
from rtc_server.services import SERVICES, SIMULTANEOUS, TRANSCRIBE, EngineSpec, check_models, plan_all, pool_address
from rtc_server.system import descriptors, hardware
from rtc_server.usage import invocation
from rtc_server.usage.command_line import Parser

logger = logging.getLogger(__name__)

_TEXT: Final = "run one model for media servers on other machines"
SHARED: Final = (
    *("model", "device", "dtype", "quantize", "kv_dtype", "stt", "stt_slots", "slots", "echo_slots", "context"),
    *("kv_pages", "temperature", "text_temperature", "top_k", "text_top_k", "seed", "allow_slow", "threads"),
    *("simultaneous", "simultaneous_slots", "pool", "cluster_key", "drain_s", "log_level"),
)
"""What it has in common with a server."""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "engine",
        help=_TEXT,
        usage="%(prog)s [OPTION ...]",
        description=config.describe(_TEXT, "engine_listen"),
        elsewhere=config.SECRETS_ELSEWHERE,
    )
    config.add_arguments(command, EngineSettings)
    config.add_arguments(command, only=SHARED)


def run(settings: Settings, own: EngineSettings) -> int:
    """Until a signal comes. The exit status. Raises ConfigError, ModelLoadError."""
    if not settings.cluster_key:
        raise ConfigError(
            "An engine needs --cluster-key, the secret of those who may use it.",
            hint=HINT,
        )
    key = ClusterKey.read(Path(settings.cluster_key))
    pool = pool_address(settings)
    if pool and own.engine_service not in SERVICES:
        raise ConfigError(f"A pool has no engines of {own.engine_service}: leave --pool out.")
    spec = planned(settings, own.engine_service)
    check_models([spec])
    descriptors.raise_limit()  # a stranger's connection takes one for as long as a handshake may last
    announcer: Announcer | None = None
    # It tells a server between which languages it translates.
    named = ("--simultaneous", settings.simultaneous) if own.engine_service == SIMULTANEOUS else ()

    def on_ready(ready: Ready) -> None:
        if announcer is not None:
            announcer.loaded(ready.info)
        _announce(own.engine_service, port.address, ready, named)

    port = ServedPort(own.engine_listen, key, on_ready)
    drain_at_signals(port, settings.drain_s)
    logger.info("listening at %s, and loading %s", port.address, own.engine_service)
    if pool:
        announcer = Announcer(port, key, own.engine_service, pool, own.engine_name)
    try:
        serve_nodes(
            lambda: make_model(spec.factory, spec.options), port, spec.real_time, own.engine_grace_s, keep_for_life
        )
    finally:
        if announcer is not None:
            announcer.close()
    return 0


def planned(settings: Settings, service: str) -> EngineSpec:
    """The engine of ``service`` by the settings of its model. Raises ConfigError if there is none."""
    own = dataclasses.replace(settings, pool="")  # which a server would leave the model to
    spec = next((spec for spec in plan_all(own, hardware.cuda_devices()) if spec.service == service), None)
    if spec is None:
        option = {TRANSCRIBE: "--stt", SIMULTANEOUS: "--simultaneous"}.get(service, "--model")
        raise ConfigError(f"There is no model for {service}.", hint=f"Name one with {option}.")
    return spec


def _announce(service: str, address: str, ready: Ready, options: Sequence[str]) -> None:
    """Print what a server needs to use it, ``options`` among it."""
    info = ready.info
    print(f"\n  {service}: {info.name} on {info.device}, {info.slots} slots, at {address}. On a media server:\n")
    reached = address.replace("0.0.0.0", "HOST")  # noqa: S104 - to be replaced by its reader
    command = invocation.command("serve", *options, "--engine-at", f"{service}={reached}", "--cluster-key", "FILE")
    print(f"    {command}\n", flush=True)
