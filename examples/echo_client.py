"""Talk to a running server from Python: send a tone to its echo, say what comes back, hang up after five seconds of it.

.venv/bin/python examples/echo_client.py [URL]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

import aiohttp
import numpy as np

from rtc_server.audio import FRAME_MS, FloatArray, level_dbfs
from rtc_server.client import MICROPHONE_HZ, OfferRefused, VoiceClient


class Tone:
    """A microphone in front of a tuning fork."""

    def __init__(self, hz: float) -> None:
        self.hz = hz
        self.sample = 0

    def __call__(self, samples: int) -> FloatArray:
        t = np.arange(self.sample, self.sample + samples) / MICROPHONE_HZ
        self.sample += samples
        return (0.2 * np.sin(2 * np.pi * self.hz * t)).astype(np.float32)


async def talk(url: str, token: str | None) -> None:
    frames: asyncio.Queue[FloatArray] = asyncio.Queue()
    async with VoiceClient(url, Tone(440), service="echo", token=token, on_voice=frames.put_nowait) as client:
        print(await client.wait_for("connected"))
        for _ in range(5000 // FRAME_MS):
            print(f"\rheard {level_dbfs(await frames.get()):6.1f} dBFS", end="", flush=True)
        print()
        client.send({"type": "bye"})
        print(await client.wait_for("disconnected"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", nargs="?", default="http://localhost:8080", help="of the server (default: %(default)s)")
    parser.epilog = "For a server that wants a key or token, it is in the environment, as KEY."
    url = parser.parse_args().url
    try:
        asyncio.run(talk(url, os.environ.get("KEY")))
    except OfferRefused as error:
        sys.exit(f"error: {error}")
    except aiohttp.InvalidURL:
        sys.exit(f"error: {url} is no address of a server.\nhint: As http://localhost:8080")
    except aiohttp.ClientError as error:
        sys.exit(f"error: No server answers at {url} ({error}).\nhint: make serve starts one.")
    except TimeoutError:
        sys.exit("error: No way through for the audio.\nhint: docs/deploy.md, What goes wrong")


if __name__ == "__main__":
    main()
