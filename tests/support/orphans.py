"""Child processes of a server, for tests that look what becomes of them."""

from __future__ import annotations

import psutil


def engines_of(pid: int) -> list[psutil.Process]:
    """Engine processes that a server has. Not any child: looking for a library starts some too."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "rtc_server.engine.process" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended. Where no init process reaps orphans, one that has ended stays on as a zombie."""
    living = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
        except psutil.NoSuchProcess:
            continue
    return living
