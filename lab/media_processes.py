"""The media processes of a server that has several."""

from __future__ import annotations

import psutil


def media_processes(host: int) -> dict[int, psutil.Process]:
    """Those of the server with the process id ``host``, by their numbers, which the names of their sockets tell."""
    found = {}
    for child in psutil.Process(host).children():
        for each in child.net_connections("unix"):
            if isinstance(each.laddr, str) and "/worker-" in each.laddr:
                found[int(each.laddr.rpartition("-")[2])] = child
    return found


def worker_of(session_id: str) -> int:
    """The number of the process that has a session."""
    return int(session_id.split("-")[1])
