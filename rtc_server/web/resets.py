"""Drops connections of clients that do not read, with nothing left of them, in the system's buffers neither."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: a close throws away what was not sent, and resets the connection."""


def drop(transport: asyncio.WriteTransport | None) -> None:
    """End the connection of ``transport``, if there is one, and of what the client has not taken keep nothing.

    What lies in the buffer of the transport is there because that of the system is full: megabytes, which the system
    would go on offering, for minutes, to a client that takes nothing, and count for no limit of ours. So the connection
    is reset. With an empty buffer, what was sent last is the system's to deliver.
    """
    if transport is None:
        return
    bound = transport.get_extra_info("socket")
    if bound is not None and transport.get_write_buffer_size():
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()
