"""``rtc-server check``: what this machine can run, and what to do about what it cannot."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rtc_server import bundled, hardware
from rtc_server.config import DEFAULT_MODEL, Settings
from rtc_server.services import ECHO, resolve_model

_PACKAGES: Final = ("aiortc", "aiohttp", "av", "numpy", "soxr", "pyzmq", "torch", "moshi", "sentencepiece")
_GIB: Final = 2**30
MOSHI_GIB: Final = 24
"""Moshi 7B in bfloat16: 14.3 GiB of weights, 1.5 GiB of cache a conversation, Mimi and working memory."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``hint`` says what to do when it is not ``ok``."""

    ok: bool
    what: str
    hint: str | None = None


def findings(settings: Settings) -> Iterator[Finding]:
    """All there is to say, in order."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(sys.version_info >= (3, 11), f"Python {version}", "Python 3.11 or later is needed.")
    yield from map(_package, _PACKAGES)
    yield _opus()
    yield Finding(True, f"{hardware.cpu_cores()} CPU cores")
    yield _cuda()
    yield from _memory()
    yield _static()
    yield Finding(
        shutil.which("turnserver") is not None,
        "coturn (NAT traversal for clients in other networks)",
        "On Debian: apt-get install coturn. Not needed on one machine or one LAN.",
    )
    model = resolve_model(settings, hardware.cuda_devices())
    stt = f"--stt {settings.stt}" if settings.stt else "no --stt model: nothing is transcribed"
    yield Finding(bool(settings.stt), stt, "To transcribe: --stt kyutai/stt-1b-en_fr, or a local directory.")
    yield _model(settings.model, model)


def _package(name: str) -> Finding:
    try:
        return Finding(True, f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(False, f"{name} is not installed", "make setup installs everything.")


def _opus() -> Finding:
    hint = "Without it lost audio is not recovered. Install the av package from its wheel, or the system's libopus."
    try:
        from rtc_server import libopus  # noqa: PLC0415 - a broken install must be a finding, not a crash

        return Finding(libopus.available(), "libopus with concealment and error correction", hint)
    except ImportError:
        return Finding(False, "libopus with concealment and error correction", hint)


def _cuda() -> Finding:
    count = hardware.cuda_devices()
    hint = f"Echo and {bundled.PICO} do without. Speech models as large as {DEFAULT_MODEL} cannot run in real time."
    return Finding(count > 0, f"{count} CUDA devices" if count else "no CUDA device", hint)


def _memory() -> Iterator[Finding]:
    if not hardware.cuda_devices():
        return
    try:
        import torch  # noqa: PLC0415 - takes seconds, and only matters beside a device

        usable = torch.cuda.is_available()
    except ImportError:
        return
    yield Finding(usable, "torch sees the device", "Install a CUDA build of torch that fits the driver.")
    for index in range(torch.cuda.device_count() if usable else 0):
        size_gib = torch.cuda.get_device_properties(index).total_memory / _GIB
        what = f"device {index}: {size_gib:.0f} GiB"
        yield Finding(size_gib >= MOSHI_GIB * 0.95, what, f"Moshi 7B in bfloat16 wants {MOSHI_GIB} GiB.")


def _static() -> Finding:
    from rtc_server.app import static_directory  # noqa: PLC0415 - a broken install must be a finding

    try:
        return Finding(static_directory().is_dir(), "the page's files")
    except StopIteration:
        return Finding(False, "the page's files are missing", "Run from a checkout, or install the package anew.")


def _model(asked: str, model: str) -> Finding:
    """What ``serve`` with the same settings would run; of a hub repository, not whether it can be had."""
    what = f"--model {asked} runs {model}"
    if model == ECHO:
        return Finding(False, what, f"echo is no speech model: {_how_to_get_one()}.")
    directory = bundled.directory_of(model)
    if directory is None:
        return Finding(True, what)
    missing = ", ".join(bundled.missing_files(model))
    lacks = f", but this installation lacks {missing} of it" if missing else ", which comes with the server"
    return Finding(not missing, what + lacks, "Install the package anew, or train it (make train).")


def _how_to_get_one() -> str:
    if bundled.is_complete(bundled.PICO):
        return f"--model {bundled.PICO} comes with the server"
    return f"name one (--model {DEFAULT_MODEL}), or train {bundled.PICO} (make train)"


def report(settings: Settings) -> tuple[str, bool]:
    """The report as text, and whether the server can run at all (with echo, at least)."""
    lines = []
    can_run = True
    for finding in findings(settings):
        lines.append(f"{'ok     ' if finding.ok else 'missing'}  {finding.what}")
        if not finding.ok and finding.hint:
            lines.append(f"         hint: {finding.hint}")
        if not finding.ok and ("not installed" in finding.what or "Python" in finding.what):
            can_run = False
    return "\n".join(lines), can_run
