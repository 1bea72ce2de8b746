"""Addresses for the two ends of an engine's link, reachable by this user alone.

On Linux they are names without files (abstract Unix sockets), which are gone with the process that has them, however it
ends; a file system knows no such thing, so elsewhere they are in a private directory.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import zmq

ABSTRACT: Final = sys.platform == "linux"


class MeetingPoint:
    """Made by the end that binds; the other end connects to what :meth:`bind` returns."""

    def __init__(self) -> None:
        self._directory = None if ABSTRACT else Path(tempfile.mkdtemp(prefix="rtc-engine-"))
        self._place = f"@rtc-engine-{secrets.token_hex(16)}" if self._directory is None else str(self._directory)

    def bind(self, socket: zmq.Socket[Any], name: str) -> str:
        """The address that ``socket`` now listens on."""
        address = f"ipc://{self._place}/{name}"
        if self._directory is None:
            # A name has no owner that would keep others out: ask who connects.
            socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        socket.bind(address)
        return address

    def close(self) -> None:
        """To be called when the sockets are closed. Idempotent."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
