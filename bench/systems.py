"""The servers under measurement: this one, and others beside it, each with its command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from bench.peers.environments import HERE, python_of
from lab.servers import System

SYSTEMS: Final = {
    system.name: system
    for system in (
        System(
            "bare aiortc",
            "aiortc",
            0.0,
            lambda port: [str(python_of("aiortc")), str(HERE / "aiortc_echo.py"), str(port)],
        ),
        System(
            "FastRTC",
            "fastrtc",
            0.0,
            lambda port: [str(python_of("fastrtc")), str(HERE / "fastrtc_echo.py"), str(port)],
        ),
        System(
            "this server",
            "rtc-server",
            0.08,
            lambda port: [
                *(sys.executable, "-m", "rtc_server", "serve", "--model", "echo", "--port", str(port)),
                # All clients of a benchmark have one address, and it wants to know what they hear beyond the limit.
                *("--offers-per-minute", "100000", "--sessions-per-address", "10000", "--max-lag-ms", "100000"),
                *("--connecting-per-address", "10000"),
            ],
        ),
    )
}
OURS: Final = "this server"


def of_tree(tree: Path) -> System:
    """This server as it is in another working tree, run by the same interpreter."""
    ours, root = SYSTEMS[OURS], tree.resolve()
    place = ("env", f"--chdir={root}", f"PYTHONPATH={root}")
    return System(f"that of {root.name}", ours.dialect, ours.frame_s, lambda port: [*place, *ours.command(port)])
