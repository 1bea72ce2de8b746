"""The WebRTC transport of a session: one peer connection, the jitter buffer and decoder of the audio that comes in,
and the voice that goes out.

A session has one that speaks and listens, which a resume replaces, and may have more that only listen. Knows no more
of sessions than :class:`~rtc_server.sessions.transport.TransportOwner`: what happens is told to it, until the
connection is retired.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rtc_server import audio
from rtc_server.audio import FloatArray
from rtc_server.config import Settings
from rtc_server.errors import BadCandidate, RestartUnsupported
from rtc_server.media.codecs import PacketDecoder, make_decoder
from rtc_server.media.inbound import PacketReceiver
from rtc_server.media.opus import OpusEncoder, make_encoder
from rtc_server.media.playout import PlayoutBuffer
from rtc_server.protocols.events import ServerEvent
from rtc_server.protocols.offer import Offer
from rtc_server.protocols.trickle import Fragment
from rtc_server.sessions.state import EndReason
from rtc_server.sessions.transport import TransportFigures, TransportOwner, Unreached
from rtc_server.system.wheel import Wheel
from rtc_server.tracks import EncodedTrack, RawTrack
from rtc_server.webrtc.channel import ChannelLanguage, OwnLanguage
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.outgoing_voice import OutgoingVoice, OwnVoice
from rtc_server.webrtc.peer import Peer
from rtc_server.webrtc.rtp_packet import Packet

_LOSS_REPORT_S: Final = 0.9
"""How often, at most, the encoder is told what the client has lost: about as often as receivers report it."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a connection is made of: the wheel that it is woken by, whose clock it goes by; its peer, a decoder by the
    name of its codec, an encoder of so many bit/s and such complexity."""

    wheel: Wheel
    make_peer: Callable[..., Peer] = Peer
    make_decoder: Callable[[str], PacketDecoder] = make_decoder
    make_encoder: Callable[[int, int], OpusEncoder] = make_encoder


class Connection:
    """``owner``: the session, or its listeners. ``language``: of its data channel. ``voice``: what is sent, where it is
    not one of its own."""

    def __init__(
        self,
        owner: TransportOwner,
        offer: Offer,
        settings: Settings,
        addresses: MediaAddresses,
        log_id: str,
        parts: Parts,
        language: ChannelLanguage | None = None,
        voice: OutgoingVoice | None = None,
    ) -> None:
        self._parts = parts
        self.etag = f'"{secrets.token_hex(8)}"'
        """Of the ICE generation, in the form that HTTP gives it."""
        self.connected = False
        self.channel_open = False
        self.opened_at = parts.wheel.now()
        self.language = language or OwnLanguage()
        self._owner: TransportOwner | None = owner
        self._offer = offer
        self._addresses = addresses
        self._receiver = PacketReceiver(parts.make_decoder)
        self._voice: OutgoingVoice = voice or self._own_voice(settings)
        self._peer = parts.make_peer(
            self, offer, self._voice.track, addresses, settings.peer_timeout_s, log_id, self.language.label
        )
        self._answers = 0
        self._heard_at = self._loss_reported_at = self.opened_at

    @property
    def name(self) -> str:
        return f"WebRTC, codec {self._offer.codec}"

    @property
    def endpoint(self) -> str:
        return "webrtc"

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
    def failure(self) -> Unreached | None:
        failure = self._peer.handshake_failure
        if failure is None:
            return None
        return Unreached(EndReason.HANDSHAKE_FAILED, f"The DTLS handshake failed: {failure.cause}.", "")

    def unreached(self) -> Unreached:
        if self._peer.handshake_unfinished:
            return Unreached(
                EndReason.HANDSHAKE_FAILED,
                "A path was found, but the client's side of the DTLS handshake did not come: see a=setup.",
                "the DTLS handshake failed: the client's side did not come",
            )
        advice = self._addresses.advice()
        return Unreached(EndReason.CONNECT_TIMEOUT, advice, f"the client never connected. {advice}")

    @property
    def deadline(self) -> float | None:
        return self._receiver.deadline

    def poll(self, now: float) -> None:
        pcm = self._receiver.poll(now)
        if self._owner is not None:
            self._owner.on_audio(self, pcm, now)

    def play(self, pcm: FloatArray, now: float) -> None:
        """Voice for the other side; none is kept for one that does not want any."""
        pcm, told = self.language.voice(pcm, now)
        self.say(told)
        if self._offer.receives:
            self._voice.play(pcm, now)

    def clear(self) -> None:
        self._voice.clear()

    def send(self, message: str, event: ServerEvent | None) -> bool:
        """Queue an event. False if it cannot be sent."""
        return self.say(self.language.outgoing(message, event))

    def say(self, messages: list[str]) -> bool:
        """Queue messages in the channel's language. False if one cannot be sent."""
        return all([self._peer.send(each) for each in messages])

    async def look(self) -> TransportFigures:
        """The figures of now; that the peer has answered since the last look is a sign of life. What it has lost is
        told to the encoder."""
        peer, received = self._peer.stats(), self._receiver.figures()
        playout, now = self._voice.playout, self._parts.wheel.now()
        if peer.answers != self._answers:
            self._answers = peer.answers
            self._heard_at = now
        if peer.fraction_lost_out is not None and now - self._loss_reported_at >= _LOSS_REPORT_S:
            self._loss_reported_at = now
            self._voice.on_loss_report(peer.fraction_lost_out)
        return TransportFigures(
            packets_received=peer.packets_received,
            packets_lost=peer.packets_lost,
            packets_late=received.late,
            packets_duplicate=received.duplicate,
            packets_undecodable=received.undecodable,
            concealed_ms=received.concealed_ms,
            played_ms=received.played_ms,
            jitter_buffer_ms=received.wait_ms,
            jitter_s=peer.jitter_s,
            fraction_lost_out=peer.fraction_lost_out,
            rtt_s=peer.rtt_s,
            playout_ms=playout.depth_ms,
            playout_dropped_ms=audio.samples_to_ms(playout.dropped_samples),
            underruns=playout.underruns,
        )

    def silent_s(self, now: float) -> float:
        """How long the peer has answered nothing, as of the last :meth:`look`."""
        return now - self._heard_at

    def retire(self) -> None:
        """Tell the owner nothing any more."""
        self._owner = None
        self.channel_open = False

    async def close(self, flush: bool = True) -> None:
        """Idempotent, and done within a few seconds. ``flush``: waits briefly for what was sent last."""
        await self._peer.close(flush)
        self.retire()

    def on_packet(self, codec: str, packet: Packet) -> None:
        if self._owner is None or not self.connected:
            return
        now = self._parts.wheel.now()
        pcm = self._receiver.push(codec, packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload, now)
        if pcm is not None:
            self._owner.on_audio(self, pcm, now)

    def on_connected(self) -> None:
        self.connected = True
        self._heard_at = self._parts.wheel.now()
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
            self.say(self.language.incoming(message, self, self._owner))

    def on_gone(self, orderly: bool) -> None:
        if self._owner is not None:
            self._owner.on_gone(self, orderly)

    def _own_voice(self, settings: Settings) -> OwnVoice:
        playout, wheel = PlayoutBuffer(settings.playout_margin_ms), self._parts.wheel
        if self._offer.codec != "OPUS":
            return OwnVoice(playout, RawTrack(playout, wheel, self._on_voice))
        encoder = self._parts.make_encoder(settings.bitrate_bps, settings.opus_complexity)
        return OwnVoice(playout, EncodedTrack(playout, encoder, settings.bitrate_bps, wheel, self._on_voice))

    def _on_voice(self) -> None:
        if self._owner is not None:
            self._owner.on_first_voice(self)
