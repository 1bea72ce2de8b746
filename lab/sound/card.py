"""A sound card that no machine has: PulseAudio with a loudspeaker that leads nowhere, and a microphone in a quiet room.

Firefox does not run its audio without one; Chromium does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class SoundCard:
    """``environment``: in which a program finds it."""

    environment: dict[str, str]

    async def say(self, spoken: Path) -> None:
        """Play a wave file into the room; returns when it is over."""
        # Half a second is handed over in advance, and played from the first sample on: a busy machine makes no hole.
        process = await asyncio.create_subprocess_exec(
            *("paplay", "--device=room", "--latency-msec=500", str(spoken)), env={**os.environ, **self.environment}
        )
        try:
            assert await process.wait() == 0, "paplay failed"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def sound_card(directory: Path, *, sleepy: bool = False) -> AsyncIterator[SoundCard]:
    """``directory``: is there, and its own.

    ``sleepy``: as PulseAudio's own are, it has played two seconds of silence in advance when a program begins to
    record, which then gets nothing for as long.
    """
    socket = directory / "native"
    how = "" if sleepy else " norewinds=1"  # then blocks are of 50 ms, however long the card has been idle
    modules = (
        f"module-native-protocol-unix socket={socket}",
        f"module-null-sink sink_name=speaker rate=48000{how}",
        f"module-null-sink sink_name=room rate=48000{how}",
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
        yield SoundCard({"PULSE_SERVER": f"unix:{socket}"})
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
