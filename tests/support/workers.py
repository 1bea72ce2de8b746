"""Processes of a server that has several."""

from __future__ import annotations

import psutil

from lab.media_processes import media_processes as processes_of
from tests.support.server_process import ServerProcess


def media_processes(server: ServerProcess) -> dict[int, psutil.Process]:
    return processes_of(server.process.pid)


def shared_engines(server: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "rtc_server.engine.shared" in child.cmdline()]
