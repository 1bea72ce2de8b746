"""Counts a connection before its TLS handshake, so that one that never shakes hands takes a place like any other.

A listening socket that asyncio serves with ``ssl=`` tells of a connection when its handshake is over. Until then it has
a descriptor, a buffer and a timer, and no limit but that time. Here the limits are asked first, by address.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import Final

from rtc_server.system.descriptors import is_shortage
from rtc_server.web.limits import Connection, Connections, Entry

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 10.0
_SHORTAGE_S: Final = 1.0
"""As asyncio's own servers wait when there is no descriptor for what would be accepted."""


class Handshakes:
    """Accepts connections from one listening socket, and closes it in the end; each becomes one of ``connections``."""

    def __init__(
        self, bound: socket.socket, connections: Connections, context: ssl.SSLContext, timeout_s: float = _TIMEOUT_S
    ) -> None:
        """``bound``: listens."""
        self._bound = bound
        self._bound.setblocking(False)
        self._connections = connections
        self._context = context
        self._timeout_s = timeout_s
        self._running: dict[asyncio.Task[None], Entry] = {}
        self._accepting = asyncio.create_task(self._accept(), name="tls-accept")

    def __len__(self) -> int:
        """How many have not shaken hands yet."""
        return len(self._running)

    async def close(self) -> None:
        """Accept nothing more, and end the handshakes that are not over."""
        unfinished = [self._accepting, *self._running]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        self._bound.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(self._bound)
            except OSError as error:
                if is_shortage(error):
                    await asyncio.sleep(_SHORTAGE_S)
                continue  # the client has gone before it was accepted
            entry = self._connections.enter(str(peer[0]))
            if entry is None:
                logger.debug("too many connections: one is refused")
                accepted.close()
            else:
                self._begin(accepted, entry)
            await asyncio.sleep(0)  # a crowd leaves time for all else

    def _begin(self, accepted: socket.socket, entry: Entry) -> None:
        connection = self._connections.admitted(entry)

        def on_end(task: asyncio.Task[None]) -> None:
            del self._running[task]
            if not connection.was_made:
                self._connections.leave(entry)
                accepted.close()

        task = asyncio.create_task(self._shake_hands(accepted, connection), name="tls-handshake")
        self._running[task] = entry
        task.add_done_callback(on_end)
        surplus = [task for task, entry in self._running.items() if entry.surplus]
        if len(surplus) > self._connections.surplus_places:
            surplus[0].cancel()

    async def _shake_hands(self, accepted: socket.socket, connection: Connection) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=self._context, ssl_handshake_timeout=self._timeout_s
            )
        except OSError as error:  # those of TLS and of time are OSErrors
            logger.debug("a TLS handshake failed: %s", type(error).__name__)
