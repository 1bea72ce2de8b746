"""A client for programs: talk to a server from Python, over WebRTC, as the page does.

Independent of the server's own parts but for sound and the wire format. ``docs/protocol.md`` says what the
events mean.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import av
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtc_server import audio
from rtc_server.audio import FloatArray, Resampler
from rtc_server.protocols.events import CHANNEL_LABEL
from rtc_server.tracks import mono_24k

MICROPHONE_HZ: Final = 48_000
_PACKET_SAMPLES: Final = MICROPHONE_HZ * audio.PACKET_MS // 1000
_TIME_BASE: Final = fractions.Fraction(1, MICROPHONE_HZ)
_MAX_EVENTS: Final = 10_000

Microphone = Callable[[int], FloatArray]
"""Called with a number of samples; returns that many, mono float32 at 48 kHz."""


class OfferRefused(Exception):
    """The server said no: ``status`` and the ``code`` and ``message`` of its error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code = status, code
        super().__init__(f"{status} {code}: {message}")


def silent_microphone(samples: int) -> FloatArray:
    return audio.silence(samples)


class MicrophoneTrack(MediaStreamTrack):
    """Sends what a :data:`Microphone` gives, 20 ms at a time, at the pace of real time."""

    kind = "audio"

    def __init__(self, microphone: Microphone) -> None:
        super().__init__()
        self._microphone = microphone
        self._started_at: float | None = None
        self._sent = 0

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        if self._started_at is None:
            self._started_at = now
        await asyncio.sleep(max(0.0, self._started_at + self._sent / MICROPHONE_HZ - now))
        pcm = self._microphone(_PACKET_SAMPLES)
        frame = av.AudioFrame.from_ndarray(audio.to_int16(pcm)[None, :], format="s16", layout="mono")
        frame.sample_rate = MICROPHONE_HZ
        frame.pts = self._sent
        frame.time_base = _TIME_BASE
        self._sent += _PACKET_SAMPLES
        return frame


class VoiceClient:
    """One conversation. Use it as an asynchronous context manager.

    ``events``: what the server has said, oldest first, bounded. ``on_voice``: called with each block of the
    server's voice, mono float32 at 24 kHz, as it comes.
    """

    def __init__(
        self,
        url: str,
        microphone: Microphone | None = silent_microphone,
        *,
        service: str | None = None,
        options: dict[str, Any] | None = None,
        on_voice: Callable[[FloatArray], None] = lambda _: None,
    ) -> None:
        self._url = url.rstrip("/")
        self._offer = {"service": service, "options": options or {}}
        self._on_voice = on_voice
        self._arrived = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self.session: str | None = None
        self.events: deque[dict[str, Any]] = deque(maxlen=_MAX_EVENTS)
        self.closed = asyncio.Event()
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel: RTCDataChannel = self.pc.createDataChannel(CHANNEL_LABEL)
        if microphone is None:
            self.pc.addTransceiver("audio", direction="recvonly")
        else:
            self.pc.addTrack(MicrophoneTrack(microphone))
        self.pc.on("track", self._on_track)
        self.pc.on("connectionstatechange", self._on_state)
        self.channel.on("message", self._on_message)

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Offer, and take the answer. Raises OfferRefused, aiohttp.ClientError."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        local = self.pc.localDescription
        body = {"sdp": local.sdp, "type": local.type, **{k: v for k, v in self._offer.items() if v is not None}}
        async with aiohttp.ClientSession() as http, http.post(f"{self._url}/api/offer", json=body) as response:
            answer = await response.json()
            if response.status >= 400:  # noqa: PLR2004
                error = answer["error"]
                raise OfferRefused(response.status, error["code"], error["message"])
        self.session = answer["session"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))

    async def close(self) -> None:
        """Hang up. Idempotent."""
        await self.pc.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, message: dict[str, Any] | str | bytes) -> None:
        """Send a message of ``docs/protocol.md``, section 3."""
        self.channel.send(json.dumps(message) if isinstance(message, dict) else message)

    async def wait_for(self, kind: str, timeout_s: float = 10.0, **fields: Any) -> dict[str, Any]:
        """The first event of type ``kind`` with these ``fields``, of those that came and will come.

        Raises TimeoutError.
        """

        def found() -> dict[str, Any] | None:
            wanted = {"type": kind, **fields}.items()
            return next((event for event in self.events if wanted <= event.items()), None)

        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: found() is not None)
        event = found()
        assert event is not None
        return event

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.create_task(self._listen(track), name="client-voice"))

    def _on_state(self) -> None:
        if self.pc.connectionState in ("closed", "failed"):
            self.closed.set()

    def _on_message(self, message: str | bytes) -> None:
        self.events.append(json.loads(message))
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._notify(), name="client-event"))

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()

    async def _listen(self, track: MediaStreamTrack) -> None:
        resampler: Resampler | None = None
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, av.AudioFrame)
            pcm, resampler = mono_24k(frame, resampler)
            self._on_voice(pcm)
