"""One peer connection of a session, and the voice that goes out on it.

A session has one that speaks and listens, which a resume replaces, and may have more that only listen. Knows nothing
of sessions or engines: what happens is told to a :class:`ConnectionOwner`, until the connection is retired.
"""

from __future__ import annotations

import secrets
import time
from typing import Protocol

from aiortc.rtp import RtpPacket

from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.errors import BadCandidate, RestartUnsupported
from rtc_server.media.opus import make_encoder
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.protocols.offer import Offer
from rtc_server.protocols.trickle import Fragment
from rtc_server.tracks import EncodedTrack, OutboundTrack, RawTrack
from rtc_server.webrtc.dtls import HandshakeFailure
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.peer import Peer, PeerStats


class ConnectionOwner(Protocol):
    """Called on the event loop; must not block."""

    def on_packet(self, connection: Connection, codec: str, packet: RtpPacket) -> None:
        """An RTP packet of the microphone."""

    def on_connected(self, connection: Connection) -> None:
        """Media can flow."""

    def on_channel_open(self, connection: Connection) -> None:
        """Events can be sent."""

    def on_channel_closed(self, connection: Connection) -> None:
        """No more events can be sent, until another channel opens."""

    def on_message(self, connection: Connection, message: str | bytes) -> None:
        """Something came on the data channel."""

    def on_gone(self, connection: Connection, orderly: bool) -> None:
        """It is over: the peer said goodbye (orderly), or its path is lost."""

    def on_first_voice(self, connection: Connection) -> None:
        """The first samples of the model leave."""


class Connection:
    """``playout``: where its voice waits; its owner fills and clears it."""

    def __init__(
        self,
        owner: ConnectionOwner,
        offer: Offer,
        playout: PlayoutBuffer,
        settings: Settings,
        addresses: MediaAddresses,
        log_id: str,
    ) -> None:
        self.etag = f'"{secrets.token_hex(8)}"'
        """Of the ICE generation, in the form that HTTP gives it."""
        self.playout = playout
        self.connected = False
        self.channel_open = False
        self.opened_at = time.monotonic()
        self._owner: ConnectionOwner | None = owner
        self._offer = offer
        self._bitrate = settings.bitrate
        self._voice = self._make_voice()
        self._peer = Peer(self, offer, self._voice, addresses, settings.peer_timeout_s, log_id)
        self._answers = 0
        self._heard_at = self.opened_at

    @property
    def sends(self) -> bool:
        """Whether the other side has said that it will send audio."""
        return self._offer.sends

    async def answer(self) -> str:
        """The answer's SDP. Raises NoPort; must be closed then, and when cancelled."""
        return await self._peer.answer()

    def trickle(self, fragment: Fragment) -> None:
        """Take candidates that became known later. Raises BadCandidate if all of them are none, RestartUnsupported."""
        ufrag, password = fragment.ufrag, fragment.password
        if not any(ufrag in (None, known[0]) and password in (None, known[1]) for known in self._offer.generations):
            raise RestartUnsupported
        if fragment.candidates and not self._peer.add_candidates(fragment.candidates):
            raise BadCandidate

    @property
    def handshake_failure(self) -> HandshakeFailure | None:
        """Why its DTLS handshake failed; None if it did not."""
        return self._peer.handshake_failure

    @property
    def handshake_unfinished(self) -> bool:
        """Whether there is a path on which its DTLS handshake does not come to an end."""
        return self._peer.handshake_unfinished

    def play(self, pcm: FloatArray, now: float) -> None:
        """Voice for the other side; none is kept for one that does not want any."""
        if self._offer.receives:
            self.playout.push(pcm, now)
            self._voice.start()

    def send(self, message: str) -> bool:
        """Queue an event. False if it cannot be sent."""
        return self._peer.send(message)

    async def look(self) -> PeerStats:
        """The figures of now; that the peer has answered since the last look is a sign of life."""
        stats = await self._peer.stats()
        if stats.answers != self._answers:
            self._answers = stats.answers
            self._heard_at = time.monotonic()
        return stats

    def silent_s(self, now: float) -> float:
        """How long the peer has answered nothing, as of the last :meth:`look`."""
        return now - self._heard_at

    def on_loss_report(self, fraction: float) -> None:
        """The peer has lost so much (0 to 1) since its last report."""
        if isinstance(self._voice, EncodedTrack):
            self._voice.on_loss_report(fraction)

    def retire(self) -> None:
        """Nothing that happens to it matters to its owner any more."""
        self._owner = None
        self.channel_open = False

    async def close(self, flush: bool = True) -> None:
        """Idempotent, and done within a few seconds. ``flush``: waits briefly for what was sent last."""
        await self._peer.close(flush)
        self.retire()

    def on_packet(self, codec: str, packet: RtpPacket) -> None:
        if self._owner is not None:
            self._owner.on_packet(self, codec, packet)

    def on_connected(self) -> None:
        self.connected = True
        self._heard_at = time.monotonic()
        if self._owner is not None:
            self._owner.on_connected(self)

    def on_channel_open(self) -> None:
        if self._owner is not None:
            self.channel_open = True
            self._owner.on_channel_open(self)

    def on_channel_closed(self) -> None:
        self.channel_open = False
        if self._owner is not None:
            self._owner.on_channel_closed(self)

    def on_message(self, message: str | bytes) -> None:
        if self._owner is not None:
            self._owner.on_message(self, message)

    def on_gone(self, orderly: bool) -> None:
        if self._owner is not None:
            self._owner.on_gone(self, orderly)

    def _make_voice(self) -> OutboundTrack:
        if self._offer.codec != "OPUS":
            return RawTrack(self.playout, self._on_voice)
        return EncodedTrack(self.playout, make_encoder(self._bitrate), self._bitrate, self._on_voice)

    def _on_voice(self) -> None:
        if self._owner is not None:
            self._owner.on_first_voice(self)
