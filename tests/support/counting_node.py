"""``python -m tests.support.counting_node ADDRESS KEY UNTIL``: a media node that lets Pico count, and says the words.

The conversation can be adopted with the key (hexadecimal). After the word ``UNTIL`` it sends nothing more, and waits to
be killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys

import numpy as np

from rtc_server.audio import FRAME_SAMPLES, FloatArray, silence
from tests.support.engines import Ear
from tests.support.script import spoken
from tests.support.served import node

QUIET = silence(FRAME_SAMPLES)


def frames(pcm: FloatArray) -> list[FloatArray]:
    padded = np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))
    return list(padded.reshape(-1, FRAME_SAMPLES))


async def main(address: str, key: str, until: str) -> None:
    client = node(address)
    client.start()
    await client.wait_settled()
    ear = Ear()
    stream = await client.open(ear)
    stream.lock(hashlib.sha256(bytes.fromhex(key)).digest())
    for frame in frames(spoken("count to twelve")):
        await stream.feed(frame)
    while until not in ear.text:
        await stream.feed(QUIET)
    sys.stdout.write(f"{ear.text}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
