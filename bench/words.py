"""``python -m bench words``: how late a word's event is, beyond what the model itself takes to write it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import uvloop

from bench.table import publish
from lab.sound.tones import tone
from lab.stenographer import DELAY_S, Stenographer
from rtc_server.app import Server
from rtc_server.audio import FloatArray
from rtc_server.client import MICROPHONE_HZ, VoiceClient
from rtc_server.config import Settings, parse
from rtc_server.engine.client import EngineClient
from rtc_server.engine.local import LocalLink
from rtc_server.metrics import Metrics

HELP = "from the end of a spoken word to its event, less the model's own delay"

_WORD_S: Final = 0.32
_PAUSE_S: Final = 0.51
"""Word and pause together are no multiple of a frame: words end at every place in one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", default="1,4,16", help="at a time, by commas")
    parser.add_argument("--seconds", type=float, default=30, help="of speech, each")


class Speaker:
    """Says a tone for a word, again and again; knows when each ended, by the client's clock."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.heard: list[float] = []
        self._at = 0
        self._began = 0.0
        self._tone = tone(500)

    def speak(self, samples: int) -> FloatArray:
        if not self._at:
            self._began = time.monotonic()
        at = (self._at + np.arange(samples)) / MICROPHONE_HZ % (_WORD_S + _PAUSE_S)
        if (at[0] < _WORD_S) and not (at[-1] < _WORD_S):
            self.ends.append(self._began + self._at / MICROPHONE_HZ)
        self._at += samples
        return (self._tone(samples) * (at < _WORD_S)).astype(np.float32)

    def hear(self, message: str | bytes) -> None:
        event: dict[str, Any] = json.loads(message)
        if event["type"] == "word":
            self.heard.append(time.monotonic())

    def lateness(self) -> list[float]:
        """Of each word, in seconds, the model's own delay taken off. Words that were said before the connection was
        there were not heard."""
        said = [end for end in self.ends if self.heard and end < self.heard[-1]]
        pairs = zip(reversed(said), reversed(self.heard), strict=False)
        return [heard - end - DELAY_S for end, heard in pairs]


def run(arguments: argparse.Namespace) -> None:
    rows = []
    for count in map(int, arguments.streams.split(",")):
        print(f"{count} streams", file=sys.stderr)
        late, cores = uvloop.run(_measure(count, arguments.seconds))
        p50, p99 = np.percentile(late, [50, 99]) * 1000
        rows.append([str(count), str(len(late)), f"{p50:.0f} ms", f"{p99:.0f} ms", f"{cores / count * 100:.1f} %"])
    publish(
        "From the end of a word to its event",
        ["streams", "words", "p50", "p99", "CPU a stream"],
        rows,
        [
            f"From the packet that ends the word to the event, less the model's own {DELAY_S * 1000:.0f} ms. "
            "In it: the rest of the frame that the word ends in (40 ms in the mean), the frame of silence by which the "
            "model knows that it has ended (80 ms), the way there and back. The model is one of the tests' that writes "
            "the pitch of tones: what is measured is all but the model.",
            "CPU: of a core, client and server together.",
        ],
    )


async def _measure(count: int, seconds: float) -> tuple[list[float], float]:
    async with _server(count) as url:
        speakers = [Speaker() for _ in range(count)]
        async with contextlib.AsyncExitStack() as stack:
            for speaker in speakers:
                client = VoiceClient(url, speaker.speak)
                client.channel.on("message", speaker.hear)
                await stack.enter_async_context(client)
            since, cpu = time.monotonic(), _cpu_s()
            await asyncio.sleep(seconds)
            cores = (_cpu_s() - cpu) / (time.monotonic() - since)
        return [late for speaker in speakers for late in speaker.lateness()], cores


@contextlib.asynccontextmanager
async def _server(slots: int) -> Any:
    options = ["--port", "0", "--model", "echo", "--vad", "off", "--connecting-per-address", "1000"]

    def engines(_: Settings, metrics: Metrics) -> dict[str, EngineClient]:
        return {"transcribe": EngineClient("transcribe", lambda: LocalLink(lambda: Stenographer(slots)), metrics)}

    server = Server(parse(options, environment={}), make_engines=engines)
    await server.start()
    try:
        await server.wait_ready()
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop(0.0)


def _cpu_s() -> float:
    times: Sequence[float] = os.times()
    return times[0] + times[1]
