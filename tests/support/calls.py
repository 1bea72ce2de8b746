"""What the integration tests share: clients with odd manners, ears that measure, and a look at what is left behind.

Waits for conditions, never for a time. Knows aioice's and aiortc's private parts where a client has to vanish.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import av
import numpy as np
import psutil
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from lab.sound.tones import TONE_LEVEL, VOICED_DBFS, Ear, tone
from lab.waiting import until
from rtc_server.app import Server
from rtc_server.audio import MODEL_RATE_HZ, PACKET_MS, PACKET_SAMPLES
from rtc_server.client import VoiceClient
from rtc_server.media.opus import PACKET_TICKS, RTP_TIME_BASE, make_encoder
from rtc_server.protocols.events import CHANNEL_LABEL
from tests.conftest import UNLIMITED
from tests.support.listening import pump
from tests.support.log_watch import WATCH

PROBED: Final = "tests.integration.probed_server"
ROOT: Final = Path(__file__).parents[2]
_POLL_S: Final = 0.01


class TapeTrack(MediaStreamTrack):
    """One second of a tone, encoded once and sent over and over: a client that costs next to nothing.

    ``hz`` is a whole number, so that the tape has no seam but the codec's. Nothing is sent before ``start`` is set.
    """

    kind = "audio"

    def __init__(self, hz: int, start: asyncio.Event | None = None) -> None:
        super().__init__()
        self._start = start
        encoder = make_encoder(32_000)
        phase = 2 * np.pi * hz * np.arange(MODEL_RATE_HZ) / MODEL_RATE_HZ
        blocks = (TONE_LEVEL * np.sin(phase)).astype(np.float32).reshape(-1, PACKET_SAMPLES)
        self._tape = [encoder.encode(block) for block in blocks]
        self._number = 0
        self._started_at: float | None = None

    async def recv(self) -> av.Packet[Any]:
        if self.readyState != "live":
            raise MediaStreamError
        if self._start is not None:
            await self._start.wait()
        now = time.monotonic()
        self._started_at = self._started_at or now
        await asyncio.sleep(max(0.0, self._started_at + self._number * PACKET_MS / 1000 - now))
        packet = av.Packet(self._tape[self._number % len(self._tape)])
        packet.pts = self._number * PACKET_TICKS
        packet.time_base = RTP_TIME_BASE
        self._number += 1
        return packet


class MuteTrack(MediaStreamTrack):
    """A microphone that never yields anything."""

    kind = "audio"

    async def recv(self) -> av.AudioFrame:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nothing resolves it")


def track_client(url: str, track: MediaStreamTrack, **arguments: Any) -> VoiceClient:
    """A client that sends a track of its own; connects as any other."""
    client = VoiceClient(url, None, **arguments)
    client.pc.addTrack(track)
    return client


def prefer_codec(client: VoiceClient, mime_type: str) -> None:
    """Offer this codec and no other."""
    (transceiver,) = client.pc.getTransceivers()
    known = type(transceiver.sender).getCapabilities("audio").codecs
    transceiver.setCodecPreferences([codec for codec in known if codec.mimeType.lower() == mime_type.lower()])


@contextlib.asynccontextmanager
async def offering(*, audio: bool = True, video: bool = False, channel: bool = True) -> AsyncIterator[dict[str, Any]]:
    """A good offer's body, of a client that will never connect."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        if audio:
            pc.addTransceiver("audio")
        if video:
            pc.addTransceiver("video")
        if channel:
            pc.createDataChannel(CHANNEL_LABEL)
        await pc.setLocalDescription(await pc.createOffer())
        yield {"sdp": pc.localDescription.sdp, "type": "offer"}
    finally:
        await pc.close()


async def assert_serves(url: str, service: str | None = None) -> None:
    """A good client is served as if nothing had happened: it hears itself."""
    ear = Ear()
    async with VoiceClient(url, tone(500), service=service, on_voice=ear) as client:
        await client.wait_for("connected")
        await ear.until_level(above=VOICED_DBFS, window_s=0.04)
        client.send({"type": "bye"})
        await client.wait_for("disconnected", reason="bye")


# What is left behind.


def _open_udp() -> int:
    return len(psutil.Process().net_connections(kind="udp"))


def _decoder_threads() -> int:
    return sum(thread.name.endswith("-decoder") for thread in threading.enumerate())


def _slots_taken(server: Server) -> int:
    """Slots in the hands of the media plane, by the leases that it holds."""
    return sum(engine.slots_used + engine.slots_asked_for for engine in server.engines.values())


def _tasks() -> Counter[str]:
    """The running tasks by what they run."""
    return Counter(task.get_coro().__qualname__ for task in asyncio.all_tasks())  # type: ignore[union-attr]


@contextlib.asynccontextmanager
async def leaves_nothing(server: Server, timeout_s: float = 15.0) -> AsyncIterator[None]:
    """What happens inside leaves no session, slot, task, decoder thread or socket."""
    tasks = _tasks()
    before = _open_udp(), _decoder_threads(), _slots_taken(server), len(server.registry)
    yield

    def more() -> Counter[str]:
        return _tasks() - tasks

    def now() -> tuple[int, int, int, int]:
        return _open_udp(), _decoder_threads(), _slots_taken(server), len(server.registry)

    try:
        await until(lambda: not more() and now() == before, "everything given back", timeout_s)
    except AssertionError as error:
        raise AssertionError(
            f"left behind after {timeout_s} s: (udp sockets, decoder threads, slots, sessions) {before} -> {now()}, "
            f"tasks {more()}"
        ) from error


# Servers in a process of their own.


class ServerProcess:
    """``rtc-server serve`` as a child process on a free port."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.url = ""
        self.log: list[str] = []
        self._reader = asyncio.create_task(self._read_log(), name="server-log")

    async def wait_ready(self, timeout_s: float = 30.0, scheme: str = "http") -> None:
        """Until it has said where it is."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            async for line in self.process.stdout:
                found = re.search(rf"{scheme}://localhost:(\d+)", line.decode())
                if found:
                    self.url = f"{scheme}://127.0.0.1:{found[1]}"
                    return
        raise AssertionError(f"the server ended before it was ready: {self.log}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait_exit(self, timeout_s: float) -> int:
        async with asyncio.timeout(timeout_s):
            status = await self.process.wait()
            await self._reader
        return status

    async def probe(self) -> dict[str, Any]:
        """What a probed server holds: see ``tests/integration/probed_server.py``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"probe\n")
        async with asyncio.timeout(30):
            async for line in self.process.stdout:
                if line.startswith(b"{"):
                    return json.loads(line)  # type: ignore[no-any-return]
        raise AssertionError(f"the server ended: {self.log[-20:]}")

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._reader

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode().rstrip())
            WATCH.read_text("a server", line)


@contextlib.asynccontextmanager
async def server_process(
    *arguments: str,
    module: str = "rtc_server",
    within: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    **kwargs: Any,
) -> AsyncIterator[ServerProcess]:
    """``python -m module serve --port 0 …``, started but not waited for; killed at the end if it still runs.

    ``within``: a command that runs another one elsewhere.
    """
    environment = {key: value for key, value in environment.items() if not key.startswith("RTC_SERVER_")}
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        *("-m", module, "serve", "--port", "0", *UNLIMITED, *arguments),
        cwd=ROOT,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **{"stdin": asyncio.subprocess.PIPE, **kwargs},
    )
    server = ServerProcess(process)
    try:
        yield server
    finally:
        await server.kill()


async def until_empty(server: ServerProcess, timeout_s: float = 30.0) -> None:
    """Until the server has no session and no slot is taken."""
    deadline = time.monotonic() + timeout_s
    while True:
        _, status = await get_json(f"{server.url}/status")
        slots = {name: engine["slots_used"] for name, engine in status["engines"].items()}
        if not any(status["sessions"].values()) and not any(slots.values()):
            return
        assert time.monotonic() < deadline, f"not empty after {timeout_s} s: {status['sessions']}, slots {slots}"
        await asyncio.sleep(_POLL_S)


def _more(before: Any, now: Any) -> bool:
    if isinstance(now, dict):
        return bool(Counter(now) - Counter(before))
    return bool(now > before)


async def assert_gives_back(server: ServerProcess, before: dict[str, Any], timeout_s: float = 20.0) -> dict[str, Any]:
    """An empty, probed server holds no more tasks, threads, files, sockets or connections than it did before;
    gives the last look at it."""
    counts = ("tasks", "threads", "files", "udp", "objects")
    deadline = time.monotonic() + timeout_s
    while True:
        now = await server.probe()
        more = {name: (before[name], now[name]) for name in counts if _more(before[name], now[name])}
        if not more:
            return now
        assert time.monotonic() < deadline, f"left behind after {timeout_s} s: {more}"
        await asyncio.sleep(0.2)


# HTTP.


@contextlib.asynccontextmanager
async def connected(url: str, pc: RTCPeerConnection, **fields: Any) -> AsyncIterator[str]:
    """A bare peer connection in conversation with a server; gives the answer's SDP."""
    try:
        await pc.setLocalDescription(await pc.createOffer())
        body = {"sdp": pc.localDescription.sdp, "type": "offer", **fields}
        async with aiohttp.ClientSession() as http, http.post(f"{url}/api/offer", json=body) as response:
            answer = await response.json()
            assert response.status == 201, answer
        await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        yield answer["sdp"]
    finally:
        await pc.close()


async def listen(track: MediaStreamTrack, ear: Ear) -> None:
    """Give an ear what a bare peer connection receives."""
    with contextlib.suppress(MediaStreamError):
        await pump(track, ear)


async def get_json(url: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        return response.status, json.loads(await response.text())


def documented(section: str, column: int = 0) -> Iterator[str]:
    """The names in backquotes in a column of the table that follows ``section`` in ``docs/protocol.md``."""
    text = (ROOT / "docs" / "protocol.md").read_text().split(section, 1)[1]
    rows = iter(text.splitlines())
    for row in rows:
        if row.startswith("|"):
            break
    for row in rows:
        if not row.startswith("|"):
            return
        yield from re.findall(r"`([a-z_]+)`", row.split("|")[column + 1])
