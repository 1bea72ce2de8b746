"""Figures of a connection's packets: what aiortc's own statistics say of them, and over all sources."""

from __future__ import annotations

import time

import pytest
from aiortc import clock
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket

from rtc_server.webrtc.rtp_packet import Packet
from rtc_server.webrtc.transceivers import LeanPeerConnection, LeanReceiver, LeanSender, RtpFigures, _ntp_time

OPUS = 96


@pytest.fixture
async def lean() -> LeanPeerConnection:
    connection = LeanPeerConnection()
    connection.addTransceiver("audio")
    yield connection
    await connection.close()


def ends(connection: LeanPeerConnection) -> tuple[LeanReceiver, LeanSender]:
    (transceiver,) = connection.getTransceivers()
    receiver, sender = transceiver.receiver, transceiver.sender
    assert isinstance(receiver, LeanReceiver)
    assert isinstance(sender, LeanSender)
    return receiver, sender


def receive(receiver: LeanReceiver, ssrc: int, sequences: list[int]) -> None:
    (codec, *_) = receiver.getCapabilities("audio").codecs
    codec.payloadType = OPUS
    vars(receiver)["_RTCRtpReceiver__codecs"][OPUS] = codec
    for number in sequences:
        receiver.take(Packet(OPUS, number, number * 960, ssrc, b"sound"))


async def report(sender: LeanSender, ssrc: int, lost_of_256: int, lsr: int = 0, dlsr: int = 0) -> None:
    info = RtcpReceiverInfo(ssrc, lost_of_256, packets_lost=1, highest_sequence=9, jitter=0, lsr=lsr, dlsr=dlsr)
    await sender._handle_rtcp_packet(RtcpRrPacket(ssrc=5, reports=[info]))


async def test_nothing_is_known_at_first(lean: LeanPeerConnection) -> None:
    assert lean.rtp_figures() == RtpFigures()


async def test_figures_of_packets_are_those_of_aiortc(lean: LeanPeerConnection) -> None:
    receiver, _ = ends(lean)
    receive(receiver, 1, [1, 2, 5, 6])
    (theirs,) = [each for each in (await receiver.getStats()).values() if each.type == "inbound-rtp"]
    figures = lean.rtp_figures()
    assert (figures.packets_received, figures.packets_lost) == (theirs.packetsReceived, theirs.packetsLost) == (4, 2)
    assert figures.jitter_ticks == theirs.jitter


async def test_totals_are_of_all_sources_those_that_are_forgotten_too(lean: LeanPeerConnection) -> None:
    """A peer with twenty SSRCs is kept account of for the last few; what it sent and lost before stays counted."""
    receiver, _ = ends(lean)
    received = []
    for ssrc in range(20):
        receive(receiver, ssrc, [10, 12])
        received.append((lean.rtp_figures().packets_received, lean.rtp_figures().packets_lost))
    assert received == [(2 * number, number) for number in range(1, 21)]
    assert len(receiver._streams) < 20


async def test_the_peers_reports_of_what_is_sent_are_read(lean: LeanPeerConnection) -> None:
    """Of our source alone; the last one counts. A round trip is known once a report answers one of ours."""
    _, sender = ends(lean)
    await report(sender, sender._ssrc + 1, 128)
    assert lean.rtp_figures().fraction_lost_out is None
    await report(sender, sender._ssrc, 64)
    await report(sender, sender._ssrc, 32)
    figures = lean.rtp_figures()
    assert (figures.fraction_lost_out, figures.rtt_s) == (0.125, None)
    private = vars(sender)
    private["_RTCRtpSender__lsr"], private["_RTCRtpSender__lsr_time"] = 77, time.time() - 0.3
    await report(sender, sender._ssrc, 0, lsr=77, dlsr=round(0.1 * 65536))
    figures = lean.rtp_figures()
    assert figures.fraction_lost_out == 0
    assert figures.rtt_s is not None
    assert figures.rtt_s > 0.19


def test_network_time_is_that_of_aiortc() -> None:
    before, ours, after = clock.current_ntp_time(), _ntp_time(), clock.current_ntp_time()
    microseconds = 2**32 // 1_000_000 * 3
    assert before - microseconds <= ours <= after + microseconds
