"""What ``webrtc.transceivers``, ``webrtc.media_transport`` and ``webrtc.dtls`` assume of the private parts of aiortc. A
version that differs fails here, by name, before it fails in a call."""

from __future__ import annotations

import inspect
from typing import Any

import pylibsrtp
import pytest
from aiortc import RTCCertificate, RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, RTCSessionDescription
from aiortc.rtcdtlstransport import RTCDtlsTransport, RtpRouter, State
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtcsctptransport import InboundStream, RTCSctpTransport
from aiortc.rtp import is_rtcp

from rtc_server.webrtc.data_transport import DataTransport
from rtc_server.webrtc.dtls import Certificate, DtlsTransport
from rtc_server.webrtc.ice import MediaAddresses
from rtc_server.webrtc.ice_agent import IceConnection
from rtc_server.webrtc.media_transport import MediaTransport
from rtc_server.webrtc.rtp_packet import Packet
from rtc_server.webrtc.transceivers import LeanPeerConnection, LeanReceiver, LeanSender


@pytest.fixture
async def lean() -> LeanPeerConnection:
    connection = LeanPeerConnection()
    connection.addTransceiver("audio")
    yield connection
    await connection.close()


async def test_transceivers_are_made_in_one_place() -> None:
    """Both ways of getting one (ours, and an offer's) go through the method that is replaced."""
    assert "_RTCPeerConnection__createTransceiver" in vars(RTCPeerConnection)
    for method in (
        RTCPeerConnection.addTransceiver,
        RTCPeerConnection.addTrack,
        RTCPeerConnection.setRemoteDescription,
    ):
        assert "__createTransceiver(" in inspect.getsource(method)


async def test_transports_and_their_connecting_are_made_in_one_place() -> None:
    assert {"_RTCPeerConnection__createDtlsTransport", "_RTCPeerConnection__connect"} <= set(vars(RTCPeerConnection))
    for method in (RTCPeerConnection.setLocalDescription, RTCPeerConnection.setRemoteDescription):
        assert "self.__connect()" in inspect.getsource(method)


async def test_certificates_and_dtls_transports_are_ours(lean: LeanPeerConnection) -> None:
    private = vars(lean)
    (certificate,) = private["_RTCPeerConnection__certificates"]
    (transport,) = private["_RTCPeerConnection__dtlsTransports"]
    assert isinstance(certificate, Certificate)
    assert isinstance(transport, DtlsTransport)
    assert {"_key", "_cert"} <= set(vars(certificate))
    assert list(inspect.signature(RTCCertificate._create_ssl_context).parameters) == ["self", "srtp_profiles"]
    assert "_create_ssl_context(" in inspect.getsource(RTCDtlsTransport.start)


def test_a_handshake_goes_the_way_that_is_watched() -> None:
    """aiortc makes the connection before the handshake, and reads it by these two calls alone while it lasts."""
    start = inspect.getsource(RTCDtlsTransport.start)
    steps = ("SSL.Connection(", "self._do_handshake()", "self._validate_peer_identity(", "self._setup_srtp()")
    assert [start.index(step) for step in steps] == sorted(start.index(step) for step in steps)
    assert "self._ssl.do_handshake()" in inspect.getsource(RTCDtlsTransport._do_handshake)
    assert "self._ssl.recv(" in inspect.getsource(RTCDtlsTransport._recv_next)
    assert "State.FAILED" in start


async def test_addresses_of_ours_are_gathered_on(lean: LeanPeerConnection) -> None:
    connection = LeanPeerConnection(addresses=MediaAddresses())
    connection.addTransceiver("audio")
    (ice,) = connection._ice_connections()
    transport = connection.getTransceivers()[0].receiver.transport.transport
    assert isinstance(ice, IceConnection)
    assert transport._connection is transport.iceGatherer._connection is ice
    assert (transport._recv, transport._send) == (ice.recv, ice.send)
    (client,) = lean._ice_connections()
    assert isinstance(client, IceConnection), "clients are protected as well"
    await connection.close()


async def test_a_lean_connection_has_lean_ends(lean: LeanPeerConnection) -> None:
    (transceiver,) = lean.getTransceivers()
    assert isinstance(transceiver.receiver, LeanReceiver)
    assert isinstance(transceiver.sender, LeanSender)


async def test_an_offer_gets_lean_ends_too() -> None:
    client, server = RTCPeerConnection(), LeanPeerConnection()
    client.addTransceiver("audio")
    await client.setLocalDescription(await client.createOffer())
    offer = client.localDescription
    await server.setRemoteDescription(RTCSessionDescription(offer.sdp, offer.type))
    (transceiver,) = server.getTransceivers()
    assert isinstance(transceiver.receiver, LeanReceiver)
    await client.close()
    await server.close()


async def test_a_receiver_has_the_private_parts_that_are_used(lean: LeanPeerConnection) -> None:
    receiver = vars(lean.getTransceivers()[0].receiver)
    for name in ("started", "codecs", "remote_streams", "rtcp_task", "decoder_thread"):
        assert f"_RTCRtpReceiver__{name}" in receiver
    assert receiver["_RTCRtpReceiver__decoder_thread"] is None
    assert "self.__remote_streams" in inspect.getsource(RTCRtpReceiver._run_rtcp), "of which its reports are"


async def test_a_sender_has_the_private_parts_that_are_used(lean: LeanPeerConnection) -> None:
    sender = vars(lean.getTransceivers()[0].sender)
    for name in ("rtp_started", "rtp_exited", "ntp_timestamp", "rtp_timestamp", "octet_count", "packet_count", "rtt"):
        assert f"_RTCRtpSender__{name}" in sender
    assert list(inspect.signature(RTCRtpSender._run_rtp).parameters) == ["self", "codec"]
    assert "self._run_rtp(parameters.codecs[0])" in inspect.getsource(RTCRtpSender.send)


def private(owner: type, name: str) -> Any:
    """What ``self.__name`` is in the methods of ``owner``."""
    return getattr(owner, f"_{owner.__name__}{name}")


async def test_what_waits_for_confirmation_can_be_seen() -> None:
    connection = LeanPeerConnection()
    connection.createDataChannel("text")
    assert {"_outbound_queue", "_sent_queue"} <= set(vars(connection.sctp))
    assert "query_consent" in vars(type(connection.sctp.transport.transport._connection))
    await connection.close()


def test_stopping_does_what_ours_rely_on() -> None:
    """aiortc's stop() joins the decoder's thread only if there is one, and waits for the events that ours set."""
    assert "if self.__decoder_thread:" in inspect.getsource(private(RTCRtpReceiver, "__stop_decoder"))
    assert "__rtp_exited.wait()" in inspect.getsource(RTCRtpSender.stop)


def test_the_router_and_the_statistics_are_what_they_were() -> None:
    assert vars(RtpRouter())["ssrc_table"] == {}
    assert {"packets_received", "max_seq"} <= set(vars(StreamStatistics(48_000)))


async def test_a_transport_reads_in_one_place(lean: LeanPeerConnection) -> None:
    """Each datagram, of the handshake and later, goes through the method that is replaced, which counts it."""
    (transport,) = lean._dtls_transports()
    assert isinstance(transport, MediaTransport)
    assert {f"_RTCDtlsTransport__{name}" for name in ("handshake_done", "rx_bytes", "rx_packets")} <= set(
        vars(transport)
    )
    assert {"_rx_srtp", "_ssl", "_data_receiver", "_rtp_router"} <= set(vars(transport))
    for method in (RTCDtlsTransport._do_handshake, private(RTCDtlsTransport, "__run")):
        assert "await self._recv_next()" in inspect.getsource(method)
    assert "except ConnectionError" in inspect.getsource(private(RTCDtlsTransport, "__run"))
    assert list(inspect.signature(RTCDtlsTransport._handle_rtcp_data).parameters) == ["self", "data"]


async def test_packets_are_taken_past_aiortc_as_soon_as_there_are_keys(lean: LeanPeerConnection) -> None:
    """Keys are there when it says that it is connected, it says so once, and it says when it is over."""
    (transport,) = lean._dtls_transports()
    agent = transport.transport._connection
    assert isinstance(agent, IceConnection)
    start, run = inspect.getsource(RTCDtlsTransport.start), inspect.getsource(private(RTCDtlsTransport, "__run"))
    steps = ("self._setup_srtp()", "self._set_state(State.CONNECTED)", "ensure_future(self.__run())")
    assert [start.index(step) for step in steps] == sorted(start.index(step) for step in steps)
    assert inspect.getsource(RTCDtlsTransport).count("self._set_state(State.CONNECTED)") == 1
    assert "self._set_state(State.CLOSED)" in run[run.index("finally:") :]
    assert list(inspect.signature(RTCDtlsTransport._set_state).parameters) == ["self", "state"]
    assert list(inspect.signature(RTCDtlsTransport.stop).parameters) == ["self"]
    taken = []
    for state in (State.CONNECTING, State.CONNECTED, State.CLOSED, State.CONNECTED, State.FAILED):
        transport._set_state(state)
        taken.append(agent.on_media is not None)
    assert taken == [False, True, False, True, False]


def test_a_packet_has_what_aiortc_reads_of_one() -> None:
    """Its router and its statistics, which are given ours; and they wait for nothing."""
    packet: Any = Packet(payload_type=96, sequence_number=5, timestamp=960, ssrc=7, payload=b"sound")
    receiver: Any = object()
    router, statistics = RtpRouter(), StreamStatistics(48_000)
    router.register_receiver(receiver, ssrcs=[], payload_types=[96])
    assert router.route_rtp(packet) is receiver
    assert router.route_rtp(packet._replace(payload_type=0)) is None
    statistics.add(packet)
    statistics.add(packet._replace(sequence_number=7, timestamp=1920))
    assert (statistics.packets_received, statistics.packets_lost) == (2, 1)


def test_reports_are_told_from_media_by_their_second_byte() -> None:
    """RFC 5761, section 4: 192 to 223 at least are no payload types of media; aiortc takes 192 to 208 for RTCP."""
    assert [second for second in range(256) if is_rtcp(bytes([128, second]))] == list(range(192, 209))


def test_libsrtp_answers_what_it_cannot_take_with_its_own_error() -> None:
    """And forgets a source by its number."""
    policy = pylibsrtp.Policy(key=bytes(30), ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND)
    session = pylibsrtp.Session(policy)
    for read in (session.unprotect, session.unprotect_rtcp):
        with pytest.raises(pylibsrtp.Error):
            read(b"\x80\x60" + bytes(60))
    with pytest.raises(pylibsrtp.Error):
        session.remove_stream(5)


async def test_an_association_has_the_private_parts_that_are_used() -> None:
    assert "_RTCPeerConnection__createSctpTransport" in vars(RTCPeerConnection)
    connection = LeanPeerConnection()
    connection.createDataChannel("text")
    sctp = connection.sctp
    assert isinstance(sctp, DataTransport)
    assert {"_inbound_streams", "_last_received_tsn", "_data_channels", "_bundled", "mid"} <= set(vars(sctp))
    assert vars(InboundStream())["reassembly"] == []
    assert {"_handle_data", "_send_chunk", "_data_channel_receive"} <= set(vars(RTCSctpTransport))
    await connection.close()
