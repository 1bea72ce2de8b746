"""``python -m lab.cluster``: a cluster on this machine, until Ctrl-C. ``make cluster`` sets up and starts it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from lab.cluster.running import Cluster, cluster
from lab.cluster.show import CLIENT, PAGE, show
from rtc_server.cli.stoppable import StoppedError, until_stopped

_HOST = "127.0.0.1"


def main() -> int:
    """The exit status: 0 when it was told to end."""
    parser = argparse.ArgumentParser(prog="python -m lab.cluster", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="of the address before both media nodes; 0: a free one")
    parser.add_argument(
        "--show",
        nargs="?",
        const=PAGE,
        choices=(PAGE, CLIENT),
        help="kill one part after the other under a conversation, of the page in a browser or of a client for programs",
    )
    arguments = parser.parse_args()
    try:
        asyncio.run(until_stopped(_run(arguments.port, arguments.show)))
    except StoppedError:
        _tell("all of it has ended")
        return 0
    except (OSError, RuntimeError, AssertionError) as error:
        sys.stderr.write(f"error: {str(error) or type(error).__name__}\n")
        return 1
    return 0


async def _run(port: int, talker: str | None) -> None:
    async with cluster(_tell, _HOST, port) as made:
        _announce(made)
        if talker is not None:
            await show(made, _tell, talker)
            _tell(
                "that was all. Without its head Ray starts no engine, and ends its machines within a minute; "
                "Ctrl-C ends the rest"
            )
        await asyncio.Event().wait()


def _announce(made: Cluster) -> None:
    engines = ", ".join(str(engine.pid) for engine in made.engines())
    _tell(f"{made.url} is the page, behind one address. Ctrl-C ends all of it. To break it, kill -9 one of:")
    for name, node in made.nodes.items():
        _tell(f"  media node {name}: process {node.pid}, by itself at {made.urls[name]}")
    _tell(f"  the pool: process {made.pool.pid}; engines: processes {engines}, and the ray::EngineHost of each")
    machines, head = (", ".join(str(each.pid) for each in found) for found in (made.ray.machines(), made.ray.head()))
    _tell(f"  Ray's machines: processes {machines}; its head, which is not started again: processes {head}")


_began = time.monotonic()


def _tell(line: str) -> None:
    sys.stdout.write(f"{time.monotonic() - _began:6.1f} s  {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
