"""Replaces aiortc's receivers and senders of audio by lean ones; all that touches their private parts.

aiortc's receiver holds every packet back for 80 ms, stalls for 320 ms after a lost one, and decodes in a thread of
its own, at 48 kHz stereo, without concealment. Its sender computes levels sample by sample and builds packets from
objects. These two keep aiortc's signaling, RTCP and statistics, and take and give encoded packets directly.

What is assumed of aiortc is said in ``tests/webrtc/test_aiortc_contract.py``, which fails on a version that differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast, runtime_checkable

from aioice import Candidate
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpReceiveParameters, RTCRtpSendParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import AnyRtcpPacket, RtcpRrPacket, RtcpRtpfbPacket, RtcpSrPacket, RtpPacket

from rtc_server.protocols.offer import Codec
from rtc_server.webrtc.data_transport import DataTransport
from rtc_server.webrtc.dtls import Certificate, HandshakeFailure
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.ice_agent import PATIENCE_S, IceConnection
from rtc_server.webrtc.media_transport import MediaTransport
from rtc_server.webrtc.rtp_packet import Packet

logger = logging.getLogger(__name__)

_HEADER: Final = struct.Struct("!BBHLL")
"""RFC 3550, section 5.1: a header without CSRC and extensions."""
_VERSION: Final = 2 << 6
_MARKER: Final = 0x80
_MAX_SOURCES: Final = 8
"""SSRCs that are kept account of. A peer that shows more is at fault or at war; the oldest are forgotten."""
_NTP_EPOCH_S: Final = 2_208_988_800
"""From 1900, where NTP begins to count, to 1970 (RFC 5905, section 6)."""

PacketSink = Callable[[str, Packet], None]
"""Called with the codec's name (``OPUS``, ``G722``, ``PCMU``, ``PCMA``) and a packet, on the event loop."""


@runtime_checkable
class PacketSource(Protocol):
    """A track that makes encoded packets."""

    async def next_packet(self) -> tuple[bytes, int, bool] | None:
        """Payload, RTP timestamp less its origin, and marker; None when this packet is not worth sending.

        Returns when the packet is due. Raises MediaStreamError once the track has stopped.
        """


@dataclass(frozen=True, slots=True)
class RtpFigures:
    """Totals of a connection so far, and the state of now. ``jitter_ticks``: of the codec's clock, as of the newest
    source. ``fraction_lost_out``: 0 to 1, from the peer's last report; ``rtt_s``: from its reports. Both None before
    the first."""

    packets_received: int = 0
    packets_lost: int = 0
    jitter_ticks: int = 0
    fraction_lost_out: float | None = None
    rtt_s: float | None = None


class LeanReceiver(RTCRtpReceiver):
    """Hands packets to :attr:`sink` as they arrive. No jitter buffer, no decoder, no thread."""

    sink: PacketSink | None = None
    _over = False
    _forgotten_received = 0
    _forgotten_lost = 0

    @property
    def packets_received(self) -> int:
        return self._forgotten_received + sum(each.packets_received for each in self._streams.values())

    @property
    def packets_lost(self) -> int:
        return self._forgotten_lost + sum(each.packets_lost for each in self._streams.values())

    @property
    def jitter_ticks(self) -> int:
        """Of the newest source."""
        newest = next(reversed(self._streams.values()), None)
        return 0 if newest is None else newest.jitter

    @property
    def _streams(self) -> dict[int, StreamStatistics]:
        private: Any = self
        streams: dict[int, StreamStatistics] = private._RTCRtpReceiver__remote_streams
        return streams

    async def stop(self) -> None:
        self._over = True
        await super().stop()

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        """As in aiortc, but for the decoder's thread; and one that was stopped before it began stays stopped."""
        private: Any = self
        if private._RTCRtpReceiver__started or self._over:
            return
        private._RTCRtpReceiver__codecs.update({codec.payloadType: codec for codec in parameters.codecs})
        self.transport._register_rtp_receiver(self, parameters)
        private._RTCRtpReceiver__rtcp_task = asyncio.ensure_future(self._run_rtcp())
        private._RTCRtpReceiver__started = True

    def take(self, packet: Packet) -> None:
        """Count a packet of this receiver's, as it came, and hand it on."""
        private: Any = self
        codec: RTCRtpCodecParameters | None = private._RTCRtpReceiver__codecs.get(packet.payload_type)
        if codec is None or not self._enabled:
            return
        streams = self._streams
        statistics = streams.get(packet.ssrc)
        if statistics is None:
            self._forget_old_sources(streams)
            statistics = streams[packet.ssrc] = StreamStatistics(codec.clockRate)
        statistics.add(cast(RtpPacket, packet))  # reads its sequence number and its timestamp
        if self.sink is not None and packet.payload:
            self.sink(codec.name.upper(), packet)

    def _forget_old_sources(self, streams: dict[int, StreamStatistics]) -> None:
        while len(streams) >= _MAX_SOURCES:
            forgotten = streams.pop(next(iter(streams)))
            self._forgotten_received += forgotten.packets_received
            self._forgotten_lost += forgotten.packets_lost
        table = self.transport._rtp_router.ssrc_table
        while len(table) > _MAX_SOURCES:
            del table[next(iter(table))]


class LeanSender(RTCRtpSender):
    """Sends what a :class:`PacketSource` makes. Any other track goes aiortc's own way.

    ``fraction_lost``: 0 to 1, from the peer's last report; None before the first."""

    _over = False
    fraction_lost: float | None = None

    @property
    def rtt_s(self) -> float | None:
        """From the peer's reports; None before there is one that tells."""
        private: Any = self
        rtt_s: float | None = private._RTCRtpSender__rtt
        return rtt_s

    async def stop(self) -> None:
        self._over = True
        await super().stop()

    async def send(self, parameters: RTCRtpSendParameters) -> None:
        """As in aiortc, where a sender that is stopped while its connection comes about begins all the same, and then
        never ends."""
        if not self._over:
            await super().send(parameters)

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        """Nothing is sent again: no section of audio offers it (RFC 4585, section 4.2), and one datagram may ask for
        thousands."""
        if isinstance(packet, RtcpRtpfbPacket):
            return
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self._ssrc:
                    self.fraction_lost = report.fraction_lost / 256
        await super()._handle_rtcp_packet(packet)

    async def _run_rtp(self, codec: RTCRtpCodecParameters) -> None:
        private: Any = self
        source = self.track
        if not isinstance(source, PacketSource):
            await super()._run_rtp(codec)
            return
        private._RTCRtpSender__rtp_started.set()
        try:
            assert codec.payloadType is not None, "negotiated"
            await self._send_packets(source, codec.payloadType)
        except (asyncio.CancelledError, ConnectionError, MediaStreamError):
            pass
        except Exception:  # the border of a task; without the event below, stop() would wait for ever
            logger.exception("the sender failed")
        source.stop()
        self.replaceTrack(None)
        private._RTCRtpSender__rtp_exited.set()

    async def _send_packets(self, source: PacketSource, payload_type: int) -> None:
        private: Any = self
        # Sequence numbers begin in the lower half, as aiortc's do: a wrap before the peer's SRTP has seen the
        # first packets would confuse it.
        sequence = secrets.randbelow(2**15)
        origin = secrets.randbits(32)
        send: Callable[[bytes], Awaitable[None]] = self.transport._send_rtp
        while True:
            packet = await source.next_packet()
            if packet is None:
                continue
            payload, ticks, marker = packet
            timestamp = (origin + ticks) % 2**32
            second_byte = payload_type | (_MARKER if marker else 0)
            await send(_HEADER.pack(_VERSION, second_byte, sequence, timestamp, self._ssrc) + payload)
            sequence = (sequence + 1) % 2**16
            private._RTCRtpSender__ntp_timestamp = _ntp_time()
            private._RTCRtpSender__rtp_timestamp = timestamp
            private._RTCRtpSender__octet_count += len(payload)
            private._RTCRtpSender__packet_count += 1


def _ntp_time() -> int:
    """Now, in 64 bits (RFC 5905, section 6): seconds, and fractions of them to the microsecond."""
    return int((time.time() + _NTP_EPOCH_S) * 2**32)


class LeanPeerConnection(RTCPeerConnection):
    """A peer connection whose transceivers have a :class:`LeanReceiver` and a :class:`LeanSender`.

    ``addresses``: gathers there and nowhere else, as a server does; None gathers as aiortc does. ``patience_s``: how
    long the peer may answer nothing before its path is dead.
    """

    def __init__(
        self,
        configuration: RTCConfiguration | None = None,
        addresses: MediaAddresses | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._addresses = addresses
        self._patience_s = patience_s
        super().__init__(configuration)
        private: Any = self
        private._RTCPeerConnection__certificates = [
            Certificate.of(each) for each in private._RTCPeerConnection__certificates
        ]

    def _RTCPeerConnection__createDtlsTransport(self) -> Any:  # noqa: N802 - aiortc's name
        dtls = self._replace_dtls(super()._RTCPeerConnection__createDtlsTransport())  # type: ignore[misc]
        ice: Any = dtls.transport
        connection = IceConnection.in_place_of(ice._connection, self._addresses, self._patience_s)
        ice._connection = ice.iceGatherer._connection = connection
        ice._recv, ice._send = connection.recv, connection.send
        return dtls

    def _replace_dtls(self, before: Any) -> MediaTransport:
        private: Any = self
        dtls = MediaTransport(before.transport, private._RTCPeerConnection__certificates)
        dtls.on("statechange", private._RTCPeerConnection__updateConnectionState)
        transports: set[Any] = private._RTCPeerConnection__dtlsTransports
        transports.discard(before)
        transports.add(dtls)
        return dtls

    def _RTCPeerConnection__createSctpTransport(self) -> None:  # noqa: N802 - aiortc's name
        super()._RTCPeerConnection__createSctpTransport()  # type: ignore[misc]
        private: Any = self
        before = self.sctp
        assert before is not None, "just made"
        private._RTCPeerConnection__sctp = after = DataTransport(before.transport)
        after._bundled, after.mid = before._bundled, before.mid
        after.on("datachannel", lambda channel: self.emit("datachannel", channel))

    def _RTCPeerConnection__createTransceiver(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - aiortc's name
        create = super()._RTCPeerConnection__createTransceiver  # type: ignore[misc]
        transceiver: Any = create(*args, **kwargs)
        transport = transceiver.receiver.transport
        before = transceiver.sender
        sender = LeanSender(before.track or transceiver.kind, transport)
        sender._stream_id = before._stream_id
        receiver = LeanReceiver(transceiver.kind, transport)
        receiver._set_rtcp_ssrc(sender._ssrc)
        transceiver._RTCRtpTransceiver__sender = sender
        transceiver._RTCRtpTransceiver__receiver = receiver
        return transceiver

    async def _RTCPeerConnection__connect(self) -> None:  # noqa: N802 - aiortc's name
        # A connection that is closed while one of its transports connects goes on to the next, and finds it closed.
        with contextlib.suppress(InvalidStateError):
            await super()._RTCPeerConnection__connect()  # type: ignore[misc]

    async def close(self) -> None:
        self._forbid_consent()
        await super().close()

    def _forbid_consent(self) -> None:
        """Keep a connection that is about to be closed from asking its peer for consent (RFC 7675).

        In aioice 0.13, one that is closed in the 20 ms between the end of its checks and the look at their result
        starts to ask after all, and then sends no request, for ever.
        """

        async def ask_nobody() -> None:
            pass

        for connection in self._ice_connections():
            connection.query_consent = ask_nobody  # type: ignore[method-assign]

    def _dtls_transports(self) -> list[MediaTransport]:
        """One if the peer bundles, as browsers do; else one for each section."""
        dtls: list[Any] = [transceiver.receiver.transport for transceiver in self.getTransceivers()]
        if self.sctp is not None:
            dtls.append(self.sctp.transport)
        return list(dict.fromkeys(dtls))

    def _ice_connections(self) -> list[IceConnection]:
        return [cast(IceConnection, each.transport._connection) for each in self._dtls_transports()]

    @property
    def handshake_unfinished(self) -> bool:
        """Whether a DTLS handshake is under way."""
        return any(each.state == "connecting" for each in self._dtls_transports())

    @property
    def handshake_failure(self) -> HandshakeFailure | None:
        """Why a DTLS handshake failed; None if none did."""
        return next((each.failure for each in self._dtls_transports() if each.failure is not None), None)

    @property
    def closed_by_peer(self) -> bool:
        """Whether the peer has said goodbye. A path that is lost, by whatever it is, is no goodbye."""
        return any(each.closed_by_peer for each in self._dtls_transports())

    @property
    def answers(self) -> int:
        """How often the peer has answered a question whether it is there."""
        return sum(connection.answers for connection in self._ice_connections())

    async def add_candidate(self, candidate: Candidate, mid: str | None) -> None:
        """Take a candidate of the peer's, for the section ``mid``. Waits while an mDNS name is looked up."""
        connections = self._ice_connections()
        if len(connections) > 1:
            sections = [(each.mid, each.receiver.transport) for each in self.getTransceivers()]
            if self.sctp is not None:
                sections.append((self.sctp.mid, self.sctp.transport))
            connections = [cast(IceConnection, dtls.transport._connection) for name, dtls in sections if name == mid]
        for connection in connections:
            await connection.add_remote_candidate(candidate)

    @property
    def messages_unconfirmed(self) -> bool:
        """Whether messages of data channels are under way that the peer has not confirmed."""
        sctp = self.sctp
        return sctp is not None and bool(sctp._outbound_queue or sctp._sent_queue)

    def rtp_figures(self) -> RtpFigures:
        """Of all sections."""
        receivers = [cast(LeanReceiver, each.receiver) for each in self.getTransceivers()]
        senders = [cast(LeanSender, each.sender) for each in self.getTransceivers()]
        return RtpFigures(
            packets_received=sum(each.packets_received for each in receivers),
            packets_lost=sum(each.packets_lost for each in receivers),
            jitter_ticks=max((each.jitter_ticks for each in receivers), default=0),
            fraction_lost_out=next((each.fraction_lost for each in senders if each.fraction_lost is not None), None),
            rtt_s=next((each.rtt_s for each in senders if each.rtt_s is not None), None),
        )

    def set_codecs(self, codecs: Iterable[Codec]) -> None:
        """Set the codecs: all are received, the first is sent. aiortc renames payload types below 96, which an offer
        may give to any codec (RFC 5761, section 4)."""
        parameters = [
            RTCRtpCodecParameters(
                mimeType=f"audio/{codec.name}", clockRate=codec.clock_hz, channels=1, payloadType=codec.payload_type
            )
            for codec in codecs
        ]
        for transceiver in self.getTransceivers():
            private: Any = transceiver
            private._codecs = parameters

    def set_packet_sink(self, sink: PacketSink | None) -> None:
        """Send the packets of every receiver to ``sink``."""
        for transceiver in self.getTransceivers():
            receiver: Any = transceiver.receiver
            receiver.sink = sink
