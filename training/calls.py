"""Examines a model behind the product's server, over WebRTC, in real time: several calls at once.

Owns the server's process, the network between and the clock. A sample is said when a microphone would have captured
it; a sound is heard when its packets have come through the jitter buffer. Judges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from lab.network.link import LinkSettings
from lab.network.profiles import Profile
from lab.network.proxy import proxied
from lab.servers import System, running
from rtc_server.audio import FRAME_MS, MODEL_RATE_HZ, FloatArray, Resampler, silence
from rtc_server.bundled import PICO, directory_of
from rtc_server.client import MICROPHONE_HZ, OfferRefused, VoiceClient
from training.direct import Who
from training.person import Caller

_FRAME_S: Final = FRAME_MS / 1000
_LOSS: Final = LinkSettings(loss=0.05)
_RESERVE: Final = MICROPHONE_HZ // 100
"""Samples that the microphone is behind, so that the resampler, which gives some more or fewer, never runs dry."""
_POLL_S: Final = 0.05
_LOAD_WITHIN_S: Final = 300.0
_SERVICE: Final = "dialogue"


@dataclass(frozen=True, slots=True)
class Way:
    """How a call goes. ``loss``: 5 % of all packets, both ways. ``codec``: the only one to be offered; empty: any."""

    loss: bool = False
    codec: str = ""


@contextlib.asynccontextmanager
async def serving(model: Path, slots: int, threads: int | None) -> AsyncIterator[str]:
    """The URL of a server of its own with ``model``, loaded. Raises RuntimeError with the end of its log,
    TimeoutError."""
    shipped = model == directory_of(PICO)  # by its name, for the server has settings for that
    options = [*("--model", PICO if shipped else str(model)), *("--stt", "none")]
    options += [*("--device", "cpu"), *("--slots", str(slots))]
    options += ["--threads", str(threads)] if threads else []
    # All callers have one address; and a server that is too slow shall show it, not refuse them.
    options += [*("--offers-per-minute", "100000"), *("--sessions-per-address", "1000"), *("--max-step-ms", "10000")]
    options += ["--connecting-per-address", "1000"]
    serve = (sys.executable, "-m", "rtc_server", "serve", "--log-level", "warning")
    system = System("this server", "rtc-server", _FRAME_S, lambda port: [*serve, *options, "--port", str(port)])
    async with running(system) as server:
        await _ready(server.url)
        yield server.url


async def _ready(url: str) -> None:
    """Until the model is loaded. Raises TimeoutError."""
    async with asyncio.timeout(_LOAD_WITHIN_S), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{url}/readyz") as response:
                if response.status == HTTPStatus.OK:
                    return
            await asyncio.sleep(_POLL_S)


async def converse(
    url: str, callers: Iterable[Who], at_a_time: int, way: Way, finished: Callable[[Who], None] = lambda _: None
) -> list[str]:
    """Lead every conversation to its end. ``finished``: told of each. Returns why calls were lost before that."""
    waiting = iter(callers)
    lost: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        if way.loss:
            proxy = await stack.enter_async_context(proxied(url, Profile("5 % loss", _LOSS, _LOSS)))
            url = f"http://127.0.0.1:{proxy.port}"
        async with asyncio.TaskGroup() as group:
            for number in range(at_a_time):
                group.create_task(_line(url, waiting, way, finished, lost), name=f"line-{number}")
    return lost


async def _line(url: str, waiting: Iterator[Who], way: Way, finished: Callable[[Who], None], lost: list[str]) -> None:
    """One caller after the other."""
    for caller in waiting:
        try:
            await _call(url, caller, way)
        except (OfferRefused, aiohttp.ClientError, ConnectionError) as error:
            lost.append(str(error) or type(error).__name__)
        finished(caller)


async def _call(url: str, caller: Caller, way: Way) -> None:
    """Raises OfferRefused, aiohttp.ClientError, ConnectionError if the call does not last as long as the caller."""
    telephone = _Telephone(caller)
    client = VoiceClient(url, telephone.microphone, on_voice=telephone.hear)
    telephone.client = client
    if way.codec:
        _offer_only(client, way.codec)
    async with client:
        while not caller.done:
            await asyncio.sleep(_POLL_S)
            if client.closed.is_set():
                telephone.read()
                raise ConnectionError(telephone.disconnected or f"connection {client.pc.connectionState}")


def _offer_only(client: VoiceClient, mime_type: str) -> None:
    (transceiver,) = client.pc.getTransceivers()
    known = type(transceiver.sender).getCapabilities("audio").codecs
    transceiver.setCodecPreferences([codec for codec in known if codec.mimeType.lower() == mime_type.lower()])


class _Telephone:
    """Between a caller and a client."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._resampler = Resampler(MODEL_RATE_HZ, MICROPHONE_HZ)
        self._ready = silence(_RESERVE)
        self._connected = False
        self._offset_s = math.inf
        self.client: VoiceClient | None = None
        self.disconnected = ""
        """Why the server has ended the call."""

    def microphone(self, count: int) -> FloatArray:
        self.read()
        if not self._connected:
            return silence(count)
        wanted = count * MODEL_RATE_HZ // MICROPHONE_HZ
        pcm = self._resampler.process(self._caller.microphone(wanted, time.monotonic()))
        ready = np.concatenate((self._ready, pcm))
        ready = np.pad(ready, (0, max(0, count - len(ready))))
        self._ready = ready[count:]
        return ready[:count]

    def hear(self, pcm: FloatArray) -> None:
        """A block of 80 ms, of which the last packet has just come."""
        if self._connected:
            self._caller.hear(pcm, time.monotonic() - len(pcm) / MODEL_RATE_HZ)

    def read(self) -> None:
        """What was written since the last time. When, the server says; what its clock is to ours, the event that came
        fastest: lost packets make others late."""
        assert self.client is not None
        while self.client.events:
            event = self.client.events.popleft()
            said_s = event["time_ms"] / 1000
            self._offset_s = min(self._offset_s, time.monotonic() - said_s)
            if event["type"] == "connected":
                self._connected = True
            elif event["type"] == "disconnected":
                self.disconnected = event["reason"]
            elif event["type"] == "text":
                self._caller.read(event["delta"], said_s + self._offset_s)


@dataclass(frozen=True, slots=True)
class Pace:
    """Whether the server kept up, from its own metrics. ``steps_in_time``: share of the model's steps that took less
    than a frame; ``frames_in_time``: of the frames, from the media plane through the engine and back."""

    steps: int
    steps_in_time: float
    step_mean_ms: float
    frames_in_time: float
    frames_dropped: int
    frames_filled: int
    underruns: int


Counts = Mapping[str, float]


async def counts(url: str) -> Counts:
    """The server's counters now, for :func:`pace`."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    found: dict[str, float] = {}
    for sample in (sample for family in families for sample in family.samples):
        in_time = sample.labels.get("le") == str(_FRAME_S)
        if sample.labels.get("service", _SERVICE) != _SERVICE or not (in_time or "le" not in sample.labels):
            continue
        found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def pace(before: Counts, after: Counts) -> Pace:
    """What happened between two calls of :func:`counts`."""

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    steps, frames = grown("rtc_step_seconds_count"), grown("rtc_frame_seconds_count")
    return Pace(
        steps=int(steps),
        steps_in_time=grown("rtc_step_seconds_bucket") / max(1, steps),
        step_mean_ms=grown("rtc_step_seconds_sum") / max(1, steps) * 1000,
        frames_in_time=grown("rtc_frame_seconds_bucket") / max(1, frames),
        frames_dropped=int(grown("rtc_frames_dropped_total")),
        frames_filled=int(grown("rtc_frames_filled_total")),
        underruns=int(grown("rtc_playout_underruns_total")),
    )
