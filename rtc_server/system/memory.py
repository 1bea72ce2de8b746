"""Measures the memory that this process may still take: what the machine has free, or less in a control group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_GIB: Final = 2**30
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class _Names:
    """What the files of a version of control groups are called, and the lines of ``stat`` that tell of cached files."""

    limit: str
    used: str
    cached: tuple[str, ...]


_V1: Final = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
_V2: Final = _Names("memory.max", "memory.current", ("active_file", "inactive_file"))


def free_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process may still take, without swapping; None where that is not known.

    A container and a service may have less than the machine: of this process's control group and those around it, the
    one with the least room counts. What a group holds of files can be had back, so it counts as free.
    """
    free = _number_after(root / "proc/meminfo", "MemAvailable:") * 1024
    if not free:  # not Linux
        return None
    rooms = [room for directory, names in _groups(root) if (room := _room(directory, names)) is not None]
    return min([free, *rooms])


def size_text(amount: int) -> str:
    """In GiB from 10 on, else in MiB: a session of Moshi's is 1,516 of them."""
    return f"{amount / _GIB:,.1f} GiB" if amount >= 10 * _GIB else f"{amount / _MIB:,.1f} MiB"


def _groups(root: Path) -> Iterator[tuple[Path, _Names]]:
    """The directories of this process's control groups, from its own up to the outermost that is to be seen. In a
    container the path of one's own may be that outside of it, where only the outermost is there."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        if not controllers:
            top, names = root / "sys/fs/cgroup", _V2
        elif "memory" in controllers.split(","):
            top, names = root / "sys/fs/cgroup/memory", _V1
        else:
            continue
        for inner in (own, *own.parents):
            yield top / inner, names


def _room(directory: Path, names: _Names) -> int | None:
    """None without a limit ("max"), or where there is no such group."""
    try:
        limit, used = (int((directory / name).read_text(encoding="ascii")) for name in (names.limit, names.used))
    except (OSError, ValueError):
        return None
    cached = sum(_number_after(directory / "memory.stat", name) for name in names.cached)
    return max(0, limit - max(0, used - cached))


def _number_after(path: Path, name: str) -> int:
    """The number on the line that begins with this word, or 0."""
    for line in _lines(path):
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
