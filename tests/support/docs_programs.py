"""Programs of the documents, run as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from tests.support.docs_examples import HZ, RUN_S
from tests.support.server_process import ROOT


def write_tone(path: Path, seconds: float) -> None:
    t = np.arange(round(seconds * 48_000)) / 48_000
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes((8000 * np.sin(2 * np.pi * HZ * t)).astype(np.int16).tobytes())


@contextlib.asynccontextmanager
async def program(code: str, where: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program of the document; killed at the end if it still runs."""
    script = where / "example.py"
    script.write_text(code)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), *arguments),
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KEY": "a-key"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def finished(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(RUN_S):
        out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return out.decode()
