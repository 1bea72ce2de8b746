"""One ``RTCPeerConnection``: offer in, answer out, a microphone, a voice, a data channel, and its end.

Knows nothing of sessions or engines: what happens is told to a :class:`PeerListener`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, Protocol

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamTrack
from aiortc.stats import (
    RTCInboundRtpStreamStats,
    RTCRemoteInboundRtpStreamStats,
    RTCTransportStats,
)

from rtc_server.audio import FloatArray
from rtc_server.errors import BadSdp
from rtc_server.opus import RTP_CLOCK_HZ
from rtc_server.protocols.events import CHANNEL_LABEL
from rtc_server.protocols.sdp import NarrowedOffer, widen_answer
from rtc_server.tracks import pump

logger = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S: Final = 5.0
_FLUSH_TIMEOUT_S: Final = 0.5
_MAX_BUFFERED_BYTES: Final = 256 * 1024
"""What a data channel may have waiting. A client that reads nothing must not cost memory without end."""


class PeerListener(Protocol):
    """Called on the event loop; must not block."""

    def on_microphone(self, pcm: FloatArray) -> None:
        """Mono float32 at 24 kHz, as it comes."""

    def on_connected(self) -> None:
        """Media can flow."""

    def on_channel_open(self) -> None:
        """Events can be sent."""

    def on_message(self, message: str | bytes) -> None:
        """Something came on the data channel."""

    def on_gone(self, orderly: bool) -> None:
        """The connection is over: closed by the other side (orderly), or lost."""


@dataclass(frozen=True, slots=True)
class PeerStats:
    """Totals so far. ``fraction_lost_out``: 0 to 1, from the peer's last report; None before the first."""

    packets_received: int = 0
    packets_lost: int = 0
    jitter_s: float = 0.0
    fraction_lost_out: float | None = None
    rtt_s: float | None = None
    transport_packets: int = 0


class Peer:
    """``voice`` is the track that is sent."""

    def __init__(self, listener: PeerListener, voice: MediaStreamTrack, log_id: str) -> None:
        self._listener = listener
        self._voice = voice
        self._log_id = log_id
        # Always given: without a list aiortc asks a public STUN server, and gathering can wait for it.
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channel: RTCDataChannel | None = None
        self._pump: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._flushed = asyncio.Event()
        self._pc.on("track", self._on_track)
        self._pc.on("datachannel", self._on_channel)
        self._pc.on("connectionstatechange", self._on_state)

    async def answer(self, offer: NarrowedOffer) -> str:
        """Accept an offer; returns the answer's SDP with our candidates in it. Raises BadSdp.

        When cancelled or failed, the peer must still be closed.
        """
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, AssertionError) as error:
            # aiortc's parser answers bad input with whatever exception comes first.
            logger.info("session %s: offer refused (%s)", self._log_id, type(error).__name__)
            raise BadSdp from error
        except (OperationError, InvalidAccessError, InvalidStateError) as error:
            raise BadSdp("The offer cannot be answered.") from error
        self._pc.addTrack(self._voice)
        await self._pc.setLocalDescription(await self._pc.createAnswer())
        return widen_answer(self._pc.localDescription.sdp, offer.declined)

    def send(self, message: str) -> bool:
        """Queue a message on the data channel. False if there is no open channel, or too much is waiting."""
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > _MAX_BUFFERED_BYTES:
            return False
        channel.send(message)
        return True

    async def stats(self) -> PeerStats:
        """What the transport has counted so far."""
        values: dict[str, float | None] = {}
        for report in (await self._pc.getStats()).values():
            if isinstance(report, RTCInboundRtpStreamStats):
                values["packets_received"] = (values.get("packets_received") or 0) + report.packetsReceived
                values["packets_lost"] = (values.get("packets_lost") or 0) + report.packetsLost
                values["jitter_s"] = report.jitter / RTP_CLOCK_HZ
            elif isinstance(report, RTCRemoteInboundRtpStreamStats):
                values["fraction_lost_out"] = report.fractionLost / 256
                values["rtt_s"] = report.roundTripTime
            elif isinstance(report, RTCTransportStats):
                values["transport_packets"] = report.packetsReceived
        return PeerStats(**values)  # type: ignore[arg-type]

    async def close(self) -> None:
        """Close everything; idempotent, and done within a few seconds. Waits briefly for what was sent last."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name=f"peer-close-{self._log_id}")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._flush()
        self._voice.stop()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._pc.close()
        except TimeoutError:
            logger.error("session %s: the peer connection did not close in time", self._log_id)
        self._pc.remove_all_listeners()

    async def _flush(self) -> None:
        channel = self._channel
        if channel is None or channel.readyState != "open" or self._pc.connectionState != "connected":
            return
        channel.on("bufferedamountlow", self._flushed.set)
        if channel.bufferedAmount:
            try:
                async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                    await self._flushed.wait()
            except TimeoutError:
                logger.debug("session %s: the last message may not have arrived", self._log_id)

    def _on_track(self, track: MediaStreamTrack) -> None:
        assert track.kind == "audio", "the offer was narrowed to audio"
        assert self._pump is None, "the offer was narrowed to one audio section"
        self._pump = asyncio.create_task(self._run_pump(track), name=f"microphone-{self._log_id}")

    async def _run_pump(self, track: MediaStreamTrack) -> None:
        try:
            await pump(track, self._listener.on_microphone)
        except Exception:  # the border of a task: a fault here costs this session and no other
            logger.exception("session %s: the microphone pump failed", self._log_id)
            self._listener.on_gone(orderly=False)

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL_LABEL or self._channel is not None:
            channel.close()
            return
        self._channel = channel
        channel.on("message", self._listener.on_message)
        self._listener.on_channel_open()

    def _on_state(self) -> None:
        state = self._pc.connectionState
        logger.debug("session %s: connection %s", self._log_id, state)
        if state == "connected":
            self._listener.on_connected()
        elif state in ("closed", "failed") and self._closing is None:
            self._listener.on_gone(orderly=state == "closed")
