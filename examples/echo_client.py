"""Talk to a running server from Python: send a tone to its echo, say what comes back, hang up after five seconds of it.

python examples/echo_client.py [URL]
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np

from rtc_server.audio import FRAME_MS, FloatArray, level_dbfs
from rtc_server.client import MICROPHONE_HZ, VoiceClient


class Tone:
    """A microphone in front of a tuning fork."""

    def __init__(self, hz: float) -> None:
        self.hz = hz
        self.sample = 0

    def __call__(self, samples: int) -> FloatArray:
        t = np.arange(self.sample, self.sample + samples) / MICROPHONE_HZ
        self.sample += samples
        return (0.2 * np.sin(2 * np.pi * self.hz * t)).astype(np.float32)


async def main(url: str) -> None:
    frames: asyncio.Queue[FloatArray] = asyncio.Queue()
    async with VoiceClient(url, Tone(440), service="echo", on_voice=frames.put_nowait) as client:
        print(await client.wait_for("connected"))
        for _ in range(5000 // FRAME_MS):
            print(f"\rheard {level_dbfs(await frames.get()):6.1f} dBFS", end="", flush=True)
        print()
        client.send({"type": "bye"})
        print(await client.wait_for("disconnected"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080"))
