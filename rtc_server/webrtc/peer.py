"""One ``RTCPeerConnection``: offer in, answer out, a microphone, a voice, a data channel, and its end.

Knows nothing of sessions or engines: what happens is told to a :class:`PeerListener`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from aioice import Candidate
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import MediaStreamTrack

from rtc_server.errors import BadCandidate, EngineUnavailable
from rtc_server.media.codecs import OPUS_CLOCK_HZ, TELEPHONE_CLOCK_HZ
from rtc_server.protocols.negotiation import AUDIO_MID, CHANNEL_MID, offer_for_stack, write_answer
from rtc_server.protocols.offer import Offer
from rtc_server.protocols.trickle import SectionCandidate
from rtc_server.webrtc.dtls import HandshakeFailure
from rtc_server.webrtc.ice import MAX_CANDIDATES, MediaAddresses, parse_candidate
from rtc_server.webrtc.rtp_packet import Packet
from rtc_server.webrtc.transceivers import LeanPeerConnection

logger = logging.getLogger(__name__)

MOST_READ: Final = 100
"""Candidates that are looked at, of those that come at once: a hundred take 2 ms, and may come any number of times."""
_CLOSE_TIMEOUT_S: Final = 5.0
_FLUSH_TIMEOUT_S: Final = 2.0
_FLUSH_POLL_S: Final = 0.01
_CHANNEL_CHANGE_S: Final = 2.0
"""For how long a second data channel may wait for the end of the first."""
_MAX_BUFFERED_BYTES: Final = 256 * 1024
"""What a data channel may have waiting. A client that reads nothing must not cost memory without end."""


class PeerListener(Protocol):
    """Called on the event loop; must not block."""

    def on_packet(self, codec: str, packet: Packet) -> None:
        """An RTP packet of the microphone, as it comes; ``codec`` is ``OPUS``, ``G722``, ``PCMU`` or ``PCMA``."""

    def on_connected(self) -> None:
        """Media can flow."""

    def on_channel_open(self) -> None:
        """Events can be sent."""

    def on_channel_closed(self) -> None:
        """No more events can be sent, until another channel opens."""

    def on_message(self, message: str | bytes) -> None:
        """Something came on the data channel."""

    def on_gone(self, orderly: bool) -> None:
        """The connection is over: the peer said goodbye (orderly), or its path is lost. Not called for a close of ours;
        may be called twice."""


@dataclass(frozen=True, slots=True)
class PeerStats:
    """Totals so far. ``fraction_lost_out``: 0 to 1, from the peer's last report; None before the first.
    ``answers``: to the question whether it is there. They prove that both ways of the path work; packets that arrive
    prove it of one."""

    packets_received: int = 0
    packets_lost: int = 0
    jitter_s: float = 0.0
    fraction_lost_out: float | None = None
    rtt_s: float | None = None
    answers: int = 0


class Peer:
    """``voice`` is the track that is sent. ``patience_s``: how long the peer may answer nothing. ``channel_label``: of
    the data channel that is used."""

    def __init__(
        self,
        listener: PeerListener,
        offer: Offer,
        voice: MediaStreamTrack,
        addresses: MediaAddresses,
        patience_s: float,
        log_id: str,
        channel_label: str,
    ) -> None:
        self._channel_label = channel_label
        self._listener = listener
        self._offer = offer
        self._voice = voice
        self._log_id = log_id
        # Always given: without a list aiortc asks a public STUN server, and gathering can wait for it.
        self._pc = LeanPeerConnection(RTCConfiguration(iceServers=[]), addresses, patience_s)
        self._clock_hz = OPUS_CLOCK_HZ if offer.codec == "OPUS" else TELEPHONE_CLOCK_HZ
        self._channel: RTCDataChannel | None = None
        self._next_channel: RTCDataChannel | None = None
        self._closing: asyncio.Task[None] | None = None
        self._may_check = addresses.may_check
        self._candidates = 0
        self._lookups: set[asyncio.Task[None]] = set()
        self._pc.on("datachannel", self._on_channel)
        self._pc.on("connectionstatechange", self._on_state)

    async def answer(self) -> str:
        """Accept the offer; returns the answer's SDP with our candidates in it. Raises NoPort, and EngineUnavailable if
        it is closed meanwhile.

        When cancelled or failed, the peer must still be closed.
        """
        # What the stack is shown is made by ourselves: an error of its own here is a fault of ours, and looks like one.
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(offer_for_stack(self._offer), "offer"))
            self._pc.set_codecs(self._offer.audio.codecs)
            self._pc.set_packet_sink(self._listener.on_packet)
            self._pc.addTrack(self._voice)
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except InvalidStateError:
            if self._closing is None:
                raise
            raise EngineUnavailable from None
        if self._closing is not None:
            raise EngineUnavailable
        self.add_candidates(self._offer.candidates)
        return write_answer(self._offer, self._pc.localDescription.sdp)

    def add_candidates(self, candidates: Iterable[SectionCandidate]) -> int:
        """Add addresses at which the peer may be reached. One that cannot be parsed costs itself alone, as everywhere
        in the field; returns how many were that were looked at."""
        understood = 0
        for each in itertools.islice(candidates, MOST_READ):
            if self._candidates >= MAX_CANDIDATES and understood:
                break  # no more are taken
            with contextlib.suppress(BadCandidate):
                candidate = parse_candidate(each.text)
                understood += 1
                if candidate is not None:
                    self._take(candidate, self._stack_mid(each))
        return understood

    def _stack_mid(self, candidate: SectionCandidate) -> str | None:
        """The stack's mid of the section that a candidate is for; None if it is for none that was taken."""
        place, channel = self._offer.place_of(candidate), self._offer.channel
        if channel is not None and place == channel.position:
            return CHANNEL_MID
        return AUDIO_MID if place == self._offer.audio.position else None

    def _take(self, candidate: Candidate, mid: str | None) -> None:
        if self._candidates >= MAX_CANDIDATES or self._closing is not None or not self._may_check(candidate.host):
            return
        self._candidates += 1
        # A task, because a name has to be looked up; an address is added before the task first waits.
        lookup = asyncio.create_task(self._pc.add_candidate(candidate, mid), name=f"candidate-{self._log_id}")
        self._lookups.add(lookup)
        lookup.add_done_callback(self._looked_up)

    def _looked_up(self, lookup: asyncio.Task[None]) -> None:
        self._lookups.discard(lookup)
        if not lookup.cancelled() and lookup.exception() is not None:
            logger.info("session %s: a candidate was of no use (%s)", self._log_id, type(lookup.exception()).__name__)

    @property
    def handshake_failure(self) -> HandshakeFailure | None:
        """Why the DTLS handshake failed; None if it did not."""
        return self._pc.handshake_failure

    @property
    def handshake_unfinished(self) -> bool:
        """Whether ICE has found a path on which the DTLS handshake does not come to an end."""
        return self._pc.handshake_unfinished

    def send(self, message: str) -> bool:
        """Queue a message on the data channel. False if there is no open channel, too much is waiting, or the message
        is longer than the peer takes."""
        channel = self._channel
        if channel is None or channel.readyState != "open" or channel.bufferedAmount > _MAX_BUFFERED_BYTES:
            return False
        offered = self._offer.channel
        if offered is None or len(message.encode()) > offered.max_message_bytes:
            return False
        channel.send(message)
        return True

    def stats(self) -> PeerStats:
        """The transport's counters so far."""
        figures = self._pc.rtp_figures()
        return PeerStats(
            packets_received=figures.packets_received,
            packets_lost=figures.packets_lost,
            jitter_s=figures.jitter_ticks / self._clock_hz,
            fraction_lost_out=figures.fraction_lost_out,
            rtt_s=figures.rtt_s,
            answers=self._pc.answers,
        )

    async def close(self, flush: bool = True) -> None:
        """Close everything; idempotent, and done within a few seconds. ``flush``: waits briefly for what was sent
        last."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(flush), name=f"peer-close-{self._log_id}")
        await asyncio.shield(self._closing)

    async def _close(self, flush: bool) -> None:
        for lookup in self._lookups:
            lookup.cancel()
        await asyncio.gather(*self._lookups, return_exceptions=True)
        if flush:
            await self._flush()
        self._voice.stop()
        self._pc.set_packet_sink(None)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._pc.close()
        except TimeoutError:
            logger.error("session %s: the peer connection did not close in time", self._log_id)
        self._pc.remove_all_listeners()

    async def _flush(self) -> None:
        """Wait until the peer has confirmed what was sent last: closing throws away what is still queued, and with
        it the reason of the end. That the channel has nothing buffered says only that SCTP has taken it over."""
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                while self._under_way(channel):  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(_FLUSH_POLL_S)
        except TimeoutError:
            logger.debug("session %s: the last message may not have arrived", self._log_id)

    def _under_way(self, channel: RTCDataChannel) -> bool:
        queued = bool(channel.bufferedAmount) or self._pc.messages_unconfirmed
        return queued and self._pc.connectionState == "connected"

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != self._channel_label or self._next_channel is not None or self._closing is not None:
            channel.close()
        elif self._channel is None:
            self._adopt(channel)
        else:
            # The client has closed the one before, of which we may hear later; or it has two, and one is enough.
            self._next_channel = channel
            asyncio.get_running_loop().call_later(_CHANNEL_CHANGE_S, self._settle_channel, channel)

    def _adopt(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._listener.on_message)
        channel.on("close", self._on_channel_closed)
        self._listener.on_channel_open()

    def _on_channel_closed(self) -> None:
        if self._closing is not None or self._pc.connectionState != "connected":
            return  # closed with all the rest
        self._channel = None
        self._listener.on_channel_closed()
        if self._next_channel is not None:
            self._settle_channel(self._next_channel)

    def _settle_channel(self, channel: RTCDataChannel) -> None:
        """Take the channel that came second, if the one before it is gone by now."""
        if self._next_channel is not channel:
            return
        self._next_channel = None
        if self._channel is None and channel.readyState == "open" and self._closing is None:
            self._adopt(channel)
        else:
            channel.close()

    def _on_state(self) -> None:
        state = self._pc.connectionState
        logger.debug("session %s: connection %s", self._log_id, state)
        if state == "connected":
            self._listener.on_connected()
        elif state in ("closed", "failed") and self._closing is None:
            if (failure := self.handshake_failure) is not None:
                reason = failure.reason or "no reason of OpenSSL's"
                logger.warning("session %s: the DTLS handshake failed: %s (%s)", self._log_id, failure.cause, reason)
            self._listener.on_gone(orderly=self._pc.closed_by_peer)
