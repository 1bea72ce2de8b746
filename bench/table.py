"""Tables as the documentation takes them: Markdown, medians with their spread, the machine, the command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

import rtc_server

TAIL: Final = ("p50", "p95", "longest")
_PACKAGES = ("aiortc", "aioice", "aiohttp", "av", "uvloop", "numpy")


def spread(values: Iterable[float | None], unit: str = "", digits: int = 0) -> str:
    """``median (least-most) unit``; a single value alone; a dash for none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return "–"
    median, least, most = (f"{value:.{digits}f}" for value in (statistics.median(known), known[0], known[-1]))
    text = median if least == most else f"{median} ({least}–{most})"
    return f"{text} {unit}".rstrip()


def tail(values: Sequence[float], unit: str, digits: int = 0) -> list[str]:
    """The cells under :data:`TAIL`."""
    return [f"{value:.{digits}f} {unit}" for value in (*np.percentile(values, [50, 95]), max(values))]


def render(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def publish(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()) -> None:
    """Print a table with everything that is needed to read it, and to make it again."""
    print(f"\n### {title}\n")
    print(render(head, rows))
    print()
    for note in notes:
        print(f"- {note}")
    print(f"- Machine: {machine()}")
    print(f"- Made by: `python -m bench {shlex.join(sys.argv[1:])}`", flush=True)


def machine() -> str:
    """CPU, cores, memory of the machine; versions of what matters here."""
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, rtc-server {rtc_server.__version__} ({_revision()}), {versions}; "
        f"load average at the end {load}"
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # a machine that is only lent may have none
        return "no git"
    return found.stdout.strip() or "no git"
