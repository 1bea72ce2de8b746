"""A bad network for a browser: a proxy in front of the server, through which every call gets a UDP relay of its own::

    python -m bench.impair --server http://localhost:8080 --profile lossy-wifi --port 9090

Owns the command. Proxy, relay and link are in ``lab/network/``.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
import time
from typing import Any

from lab.network.link import LinkSettings, Outage
from lab.network.profiles import PROFILES, Profile
from lab.network.proxy import Proxy


def changed(settings: LinkSettings, changes: list[str]) -> LinkSettings:
    """``settings`` with ``name=value`` pairs applied; an outage is ``outage=START+LENGTH`` or, to repeat,
    ``outage=START+LENGTH/EVERY``, in seconds. Raises ValueError, TypeError for what is no setting."""
    values: dict[str, Any] = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name == "outage":
            window, _, every = value.partition("/")
            start, _, length = window.partition("+")
            outage = Outage(float(start), float(length), float(every or 0))
            values["outages"] = (*values.get("outages", settings.outages), outage)
        elif name == "in_order":
            values[name] = value.lower() in ("1", "true", "yes")
        else:
            values[name] = float(value)
    return dataclasses.replace(settings, **values)


async def _serve(arguments: argparse.Namespace, profile: Profile) -> None:
    proxy = Proxy(arguments.server, profile, arguments.seed, arguments.address)
    await proxy.start(arguments.host, arguments.port)
    print(f"\n  Open http://{arguments.host}:{proxy.port} in a browser and talk.\n")
    print(f"  {profile.describe()}; seed {arguments.seed}. Ctrl-C ends it.\n", flush=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    began = time.monotonic()
    await stop.wait()
    for call, relay in enumerate(proxy.relays):
        print(f"  call {call}: up {relay.up.counts}, down {relay.down.counts}")
    print(f"  {time.monotonic() - began:.0f} s")
    await proxy.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.impair", description=__doc__.partition("\n")[0])
    parser.add_argument("--server", default="http://localhost:8080", help="the server's address (default: %(default)s)")
    parser.add_argument("--profile", choices=PROFILES, default="lossy-wifi", help="default: %(default)s")
    parser.add_argument("--host", default="localhost", help="where to listen for HTTP (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9090, help="default: %(default)s; 0 takes a free one")
    parser.add_argument("--address", help="IPv4 address for the media (default: the machine's first)")
    parser.add_argument("--seed", type=int, default=0, help="of the network's chances (default: %(default)s)")
    names = ", ".join(field.name for field in dataclasses.fields(LinkSettings) if field.name != "outages")
    for way in ("up", "down"):
        parser.add_argument(
            f"--{way}",
            nargs="+",
            default=[],
            metavar="NAME=VALUE",
            help=f"change that way: {names}, outage=START+LENGTH",
        )
    arguments = parser.parse_args()
    profile = PROFILES[arguments.profile]
    try:
        profile = Profile(profile.name, changed(profile.up, arguments.up), changed(profile.down, arguments.down))
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    asyncio.run(_serve(arguments, profile))


if __name__ == "__main__":
    main()
