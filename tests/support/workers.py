"""Media processes of a server that has several."""

from __future__ import annotations

import psutil

from tests.support.server_process import ServerProcess


def media_processes(server: ServerProcess) -> dict[int, psutil.Process]:
    """By their numbers, which the names of their sockets tell."""
    found = {}
    for child in psutil.Process(server.process.pid).children():
        for each in child.net_connections("unix"):
            if isinstance(each.laddr, str) and "/worker-" in each.laddr:
                found[int(each.laddr.rpartition("-")[2])] = child
    return found


def shared_engines(server: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "rtc_server.engine.shared" in child.cmdline()]


def worker_of(session_id: str) -> int:
    """The number of the process that has a session."""
    return int(session_id.split("-")[1])
