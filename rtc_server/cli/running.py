"""What every process of ours does first: logging, and which event loop it runs on."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any

from rtc_server.config import Settings
from rtc_server.errors import StartupError


def configure_logging(settings: Settings, who: str = "") -> None:
    """Log to standard error. ``who``: put before the name of the logger."""
    level = settings.log_level.upper()
    form = f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s"
    logging.basicConfig(level=level, stream=sys.stderr, format=form)
    if level != "DEBUG":
        # At INFO they log the addresses of peers, and of ours.
        for name in ("aioice", "aiortc"):
            logging.getLogger(name).setLevel(logging.WARNING)


def run(main: Coroutine[Any, Any, None], settings: Settings) -> None:
    """Run ``main`` on uvloop, if the settings want that and it is there."""
    runner = asyncio.run
    if settings.uvloop:
        try:
            import uvloop  # noqa: PLC0415 - not on every platform
        except ImportError:
            logging.getLogger(__name__).info("uvloop is not installed: running without it")
        else:
            runner = uvloop.run
    runner(main)


def explain(error: StartupError) -> None:
    """Tell the operator why there is no server."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
