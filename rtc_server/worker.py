"""One of the media processes of a server: what it shares with the others.

They have the port, the limits and the engines in common; each has sessions and UDP ports of its own. Owns the memory
that they share, and the socket by which they pass requests on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rtc_server.access import shared_buckets
from rtc_server.access.ephemeral import EphemeralKeys
from rtc_server.access.shared_buckets import SharedBuckets
from rtc_server.config import Settings
from rtc_server.services import ALL_SERVICES
from rtc_server.sessions import places
from rtc_server.sessions.places import SharedPlaces
from rtc_server.system.shared_file import SharedFile
from rtc_server.web.gate import Access, offers_allowed, visitor_of
from rtc_server.web.limits import Connections
from rtc_server.web.siblings import Siblings, WorkerPlace

_READY_S: Final = 3.0
"""For engines that run already, which is all that a process in another's place has to wait for."""
_REFRESH_S: Final = 0.25
"""Clients that were connecting, and are there by now, are told to the others so often."""


@dataclass(frozen=True, slots=True)
class Worker:
    """``key``: a secret of the server's processes. ``listeners``: descriptors of the port's sockets."""

    place: WorkerPlace
    key: bytes
    listeners: tuple[int, ...]


def create_shared(directory: Path, workers: int, settings: Settings) -> None:
    """Make the memory that so many processes share."""
    size = shared_buckets.SIZE + places.size(workers, settings.max_sessions)
    SharedFile.create(_shared_in(directory), size).close()


def free_places(directory: Path, index: int, workers: int, settings: Settings) -> None:
    """Free the places that a process held which has ended: it may not have come to that."""
    file = SharedFile(_shared_in(directory))
    SharedPlaces(file, index, workers, settings.max_sessions, ALL_SERVICES, shared_buckets.SIZE).close()
    file.close()


class Shared:
    """What ``worker`` shares. Its offers, and the keys that it makes for a short time, are all processes' from now
    on."""

    def __init__(self, worker: Worker, settings: Settings, access: Access) -> None:
        place = worker.place
        self._worker = worker
        self._file = SharedFile(_shared_in(place.directory))
        self.places = SharedPlaces(
            self._file, place.index, place.count, settings.max_sessions, ALL_SERVICES, shared_buckets.SIZE
        )
        self.siblings = Siblings(place, settings.node, lambda request: visitor_of(request).address, self.places.held)
        access.offers = SharedBuckets(*offers_allowed(settings), self._file, worker.key)
        access.ephemeral = EphemeralKeys(worker.key)
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def listeners(self) -> list[socket.socket]:
        """The port's sockets."""
        return [socket.socket(fileno=descriptor) for descriptor in self._worker.listeners]

    def start(self, connections: Connections, wait_ready: Callable[[], Awaitable[None]]) -> None:
        """Listen for what the others pass on, as soon as the engines can be asked: until then, those who come back to a
        process that was killed are taken over by any other, and not told by the one in its place to wait."""
        self._tasks = [
            asyncio.create_task(self._listen(connections, wait_ready), name="siblings"),
            asyncio.create_task(self._refresh(), name="places"),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        await self.siblings.close()
        self.places.close()
        self._file.close()

    async def _listen(self, connections: Connections, wait_ready: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(Exception):  # why there is no engine, its own watch tells
            async with asyncio.timeout(_READY_S):
                await wait_ready()
        place, loop = self._worker.place, asyncio.get_running_loop()
        bound = _bind(Path(place.socket_path(place.index)))
        self._server = await loop.create_unix_server(
            lambda: connections.admitted(connections.enter_sibling()), sock=bound
        )

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            self.places.refresh()


def _bind(path: Path) -> socket.socket:
    """A Unix socket in the directory of this user alone, in place of that of a process that was killed."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    return bound


def _shared_in(directory: Path) -> Path:
    return directory / "shared"
