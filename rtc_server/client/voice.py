"""A client for programs: talk to a server from Python, over WebRTC, as the page does.

Shares with the server the way audio comes in, and the wire format. ``docs/protocol.md`` says what the events mean.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import av
import numpy as np
from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.client.microphone import MICROPHONE_HZ, Microphone, silent_microphone
from rtc_server.media.inbound import InboundStream
from rtc_server.protocols.events import CHANNEL_LABEL
from rtc_server.system.tasks import to_the_end
from rtc_server.webrtc.rtp_packet import Packet
from rtc_server.webrtc.transceivers import LeanPeerConnection

_PACKET_SAMPLES: Final = MICROPHONE_HZ * audio.PACKET_MS // 1000
_TIME_BASE: Final = fractions.Fraction(1, MICROPHONE_HZ)
_MAX_EVENTS: Final = 10_000
_OVER: Final = ("closed", "failed")
_MOVE_AGAIN_S: Final = 0.5
_MOVE_PATIENCE_S: Final = 10.0
"""After the server that has stopped: as long as it takes another one to notice."""


class Refused(Exception):
    """The server said no: ``status``, the ``code`` and ``message`` of its error, and when to ask again, if it said."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        self.status, self.code = status, code
        self.retry_after_s = retry_after_s
        super().__init__(f"{status} {code}: {message}")

    @classmethod
    async def of(cls, response: aiohttp.ClientResponse) -> Self:
        """A response that is an error, of this server or of what stands in front of it."""
        again = response.headers.get("Retry-After", "")
        try:
            error = (await response.json())["error"]
            code, message = str(error["code"]), str(error["message"])
        except (aiohttp.ContentTypeError, ValueError, KeyError, TypeError):
            code, message = "unknown", response.reason or "The server gives no reason."
        return cls(response.status, code, message, int(again) if again.isdecimal() else None)


class OfferRefused(Refused):
    """An offer was refused."""


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
        # In stereo, for aiortc's Opus encoder is: FFmpeg makes mono 3 dB quieter on the way there.
        both = np.repeat(audio.to_int16(pcm), 2)[None, :]
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate = MICROPHONE_HZ
        frame.pts = self._sent
        frame.time_base = _TIME_BASE
        self._sent += _PACKET_SAMPLES
        return frame


class VoiceClient:
    """One conversation. Use it as an asynchronous context manager.

    ``options``: of the offer; ``{"wait": True}``: a server whose model is being started answers at once, and says
    ``connected`` when it is there. ``events``: what the server has said, oldest first, bounded; ``on_event``: called
    with each of them. ``on_voice``: called
    with each block of the server's voice: 80 ms of mono float32 at 24 kHz, at the pace of real time from the moment
    it is connected. ``token``: a key or token for a server that wants one. ``ice_servers``: relays, for networks that
    need one.

    Where the server stops and another one goes on with the session (``moving``), the client goes there by itself, and
    hears the old one until the new one has answered: ``session`` and ``pc`` are others then.
    """

    def __init__(
        self,
        url: str,
        microphone: Microphone | None = silent_microphone,
        *,
        service: str | None = None,
        options: dict[str, Any] | None = None,
        on_voice: Callable[[FloatArray], None] = lambda _: None,
        on_event: Callable[[dict[str, Any]], None] = lambda _: None,
        token: str | None = None,
        ice_servers: Sequence[RTCIceServer] = (),
    ) -> None:
        self._url = url.rstrip("/")
        self._wish = {"service": service, "options": options or {}}
        self._microphone = microphone
        self._on_voice = on_voice
        self._on_event = on_event
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._ice_servers = list(ice_servers)
        self._voice = InboundStream(time.monotonic())
        self._arrived = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._keeps_time = False
        self._resume_token: str | None = None
        self._last_seq = 0
        self._resuming = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self.session: str | None = None
        self.events: deque[dict[str, Any]] = deque(maxlen=_MAX_EVENTS)
        self.closed = asyncio.Event()
        self.pc, self.channel = self._make_connection()

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
        await self._offer(self.pc, {key: value for key, value in self._wish.items() if value is not None})

    async def resume(self, url: str | None = None) -> None:
        """Come back into the same conversation over a new connection, after the path of the old one has died, or its
        server. ``url``: of another server that shares its engines; None: the same one.

        Raises OfferRefused when the server does not have it any more, aiohttp.ClientError.
        """
        async with self._resuming:  # a token is good once
            before, old_channel = self.pc, self.channel
            after, channel = self._make_connection()
            self._url = self._url if url is None else url.rstrip("/")
            back = {"session": self.session, "token": self._resume_token, "last_seq": self._last_seq}
            try:
                await self._offer(after, {"resume": back})
            except BaseException:
                if before.connectionState in _OVER:
                    self.closed.set()
                await asyncio.shield(self._let_go(after))
                raise
            self.pc, self.channel = after, channel
            self.closed.clear()
            # Only now: a connection that is closed tells the server that the conversation is over.
            before.remove_all_listeners()
            old_channel.remove_all_listeners()
            closing = self._let_go(before)
        await asyncio.shield(closing)

    def _let_go(self, pc: LeanPeerConnection) -> asyncio.Task[None]:
        """Close a connection to the end, whatever is cancelled meanwhile: half closed, it would keep its sockets."""
        task = asyncio.create_task(pc.close(), name="client-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def _move(self, within_s: float) -> None:
        """Resume at the same address, where another server answers by now, or soon."""
        before = self.pc
        deadline = time.monotonic() + within_s + _MOVE_PATIENCE_S
        while self.pc is before and time.monotonic() < deadline:
            try:
                await self.resume()
            except (OfferRefused, aiohttp.ClientError) as error:
                if isinstance(error, OfferRefused) and error.status < 500:  # noqa: PLR2004
                    return  # no server has the session: it ends with this connection
                await asyncio.sleep(_MOVE_AGAIN_S)

    def _make_connection(self) -> tuple[LeanPeerConnection, RTCDataChannel]:
        pc = LeanPeerConnection(RTCConfiguration(iceServers=self._ice_servers))
        channel = pc.createDataChannel(CHANNEL_LABEL)
        if self._microphone is None:
            pc.addTransceiver("audio", direction="recvonly")
        else:
            pc.addTrack(MicrophoneTrack(self._microphone))
        pc.set_packet_sink(self._on_packet)
        pc.on("connectionstatechange", lambda: self._on_state(pc))
        channel.on("message", self._on_message)
        return pc, channel

    async def _offer(self, pc: LeanPeerConnection, fields: dict[str, Any]) -> None:
        await pc.setLocalDescription(await pc.createOffer())
        body = {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type, **fields}
        async with aiohttp.ClientSession(headers=self._headers) as http:
            try:
                answer = await self._post(http, body)
            except aiohttp.ClientConnectionError:
                # The answer may have been lost. A resume's very same offer is answered again; the token is spent.
                if "resume" not in fields:
                    raise
                answer = await self._post(http, body)
        self.session = answer["session"]
        self._resume_token = answer["resume"]["token"] if answer.get("resume") else None
        # To the end: aiortc closes here what a bundle has no use for, and, cut short, leaves half of it open for ever.
        taking = pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        await to_the_end(taking, "client-answer")

    async def _post(self, http: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
        async with http.post(f"{self._url}/api/offer", json=body) as response:
            if response.status >= 400:  # noqa: PLR2004
                raise await OfferRefused.of(response)
            answer: dict[str, Any] = await response.json()
            return answer

    async def close(self) -> None:
        """Hang up. Idempotent."""
        await self._drop_tasks()
        self._let_go(self.pc)
        await asyncio.shield(asyncio.gather(*self._closing))

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

    def _on_packet(self, codec: str, packet: Packet) -> None:
        now = time.monotonic()
        self._hear(self._voice.push(codec, packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload, now))

    async def _keep_time(self) -> None:
        """The voice's timeline goes on in silence, in which the server sends nothing."""
        while True:
            await asyncio.sleep(max(0.0, self._voice.deadline - time.monotonic()))
            self._hear(self._voice.poll(time.monotonic()))

    def _hear(self, frames: list[FloatArray]) -> None:
        for frame in frames:
            self._on_voice(frame)

    async def _drop_tasks(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_state(self, pc: LeanPeerConnection) -> None:
        if pc.connectionState == "connected":
            self._voice.restart(time.monotonic())
            if not self._keeps_time:
                self._keeps_time = True
                self._tasks.append(asyncio.create_task(self._keep_time(), name="client-voice"))
        elif pc.connectionState in _OVER and not self._resuming.locked():
            self.closed.set()

    def _on_message(self, message: str | bytes) -> None:
        event = json.loads(message)
        if event["type"] == "disconnected" and event["reason"] == "moved":
            return  # of the connection that this client has resumed from
        seq = event.get("seq")
        if seq is not None and seq <= self._last_seq:  # seen on the connection before
            return
        self._last_seq = seq or self._last_seq
        self.events.append(event)
        self._on_event(event)
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._notify(), name="client-event"))
        if event["type"] == "moving" and self._resume_token is not None:
            self._tasks.append(asyncio.create_task(self._move(event["in_ms"] / 1000), name="client-move"))

    async def _notify(self) -> None:
        async with self._arrived:
            self._arrived.notify_all()
