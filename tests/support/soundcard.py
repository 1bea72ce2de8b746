"""A sound card that no machine has: PulseAudio with a loudspeaker and a microphone that lead nowhere.

Firefox does not run its audio without one; Chromium does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

_START_TIMEOUT_S = 20.0


@contextlib.asynccontextmanager
async def sound_card(directory: Path) -> AsyncIterator[dict[str, str]]:
    """Gives the environment in which a program finds it. ``directory``: is there, and its own."""
    socket = directory / "native"
    modules = (
        f"module-native-protocol-unix socket={socket}",
        "module-null-sink sink_name=speaker rate=48000",
        "module-null-sink sink_name=room rate=48000",
        "module-remap-source source_name=microphone master=room.monitor rate=48000",
    )
    environment = {**os.environ, "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    arguments = [part for module in modules for part in ("-L", module)]
    process = await asyncio.create_subprocess_exec(
        *("pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--log-level=error"),
        *arguments,
        env=environment,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not os.path.exists(socket):  # noqa: ASYNC240, PTH110 - one look at a local file
                assert process.returncode is None, "pulseaudio ended"
                await asyncio.sleep(0.02)
        yield {"PULSE_SERVER": f"unix:{socket}"}
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
