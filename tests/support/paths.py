"""Paths between a browser and a server that a test can cut: the page comes through a proxy, its media through a relay
for each connection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from lab.network.link import LinkSettings, Outage
from lab.network.profiles import Profile
from lab.network.proxy import Proxy
from rtc_server.app import Server

_OUT: Final = LinkSettings(outages=(Outage(0.0, 1e9),))
CLEAR: Final = Profile("clear", LinkSettings(), LinkSettings())
DEAD: Final = Profile("dead", _OUT, _OUT)


class Paths:
    """``url`` is where the page is."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.url = f"http://localhost:{proxy.port}/"

    @property
    def count(self) -> int:
        """How many connections there have been."""
        return len(self._proxy.relays)

    def cut(self) -> None:
        """The latest path is dead for good; the next one will work, as after a change of the network."""
        self._proxy.relays[-1].apply(DEAD)

    def cut_all(self) -> None:
        """So are those to come."""
        self._proxy.apply(DEAD)

    def mend_all(self) -> None:
        """Every path works again, old ones too."""
        self._proxy.apply(CLEAR)

    def mend_next(self) -> None:
        """Only those to come work."""
        self._proxy.profile = CLEAR


@contextlib.asynccontextmanager
async def paths_to(server: Server) -> AsyncIterator[Paths]:
    """In front of a server on this machine."""
    proxy = Proxy(f"http://127.0.0.1:{server.port}", CLEAR)
    await proxy.start()
    try:
        yield Paths(proxy)
    finally:
        await proxy.stop()
