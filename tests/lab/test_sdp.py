"""Descriptions rewritten so that a peer looks for the other one where the relay is."""

from __future__ import annotations

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from lab.network.sdp import candidates, with_only_candidate

ANSWER = "\r\n".join(
    [
        "v=0",
        "o=- 1 1 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1",
        "m=audio 45678 UDP/TLS/RTP/SAVPF 96",
        "c=IN IP4 198.51.100.7",
        "a=mid:0",
        "a=candidate:a 1 udp 2130706431 198.51.100.7 45678 typ host",
        "a=candidate:b 1 udp 2130706175 2001:db8::7 45679 typ host",
        "a=candidate:c 1 tcp 1694498815 198.51.100.7 9 typ host tcptype active",
        "a=end-of-candidates",
        "a=ice-ufrag:abcd",
        "m=application 45678 UDP/DTLS/SCTP webrtc-datachannel",
        "a=mid:1",
        "a=candidate:a 1 udp 2130706431 198.51.100.7 45678 typ host",
        "m=video 0 UDP/TLS/RTP/SAVPF 97",
        "a=mid:2",
        "",
    ]
)


def test_candidates_are_the_udp_ones_once_each() -> None:
    """Of both address families, in order."""
    assert candidates(ANSWER) == [("198.51.100.7", 45678), ("2001:db8::7", 45679)]


def test_one_candidate_is_left_where_there_were_some() -> None:
    """In each section that had any; a section without stays without; everything else is untouched."""
    rewritten = with_only_candidate(ANSWER, "192.0.2.1", 5000)
    assert candidates(rewritten) == [("192.0.2.1", 5000)]
    assert rewritten.count("a=candidate:") == 2
    kept = [line for line in ANSWER.splitlines() if not line.startswith("a=candidate:")]
    assert [line for line in rewritten.splitlines() if not line.startswith("a=candidate:")] == kept
    assert rewritten.endswith("\r\n")


def test_lines_may_end_with_a_newline_alone() -> None:
    """Some clients write them so."""
    assert with_only_candidate(ANSWER.replace("\r\n", "\n"), "192.0.2.1", 5000) == with_only_candidate(
        ANSWER, "192.0.2.1", 5000
    )


def test_rewriting_twice_is_rewriting_once() -> None:
    """A proxy behind a proxy does no harm."""
    once = with_only_candidate(ANSWER, "192.0.2.1", 5000)
    assert with_only_candidate(once, "192.0.2.1", 5000) == once


@pytest.mark.parametrize("line", ["a=candidate:", "a=candidate:a 1 udp", "a=candidate:a 1 udp 1 192.0.2.1"])
def test_half_a_candidate_is_no_address(line: str) -> None:
    """And raises nothing."""
    assert candidates(f"v=0\r\n{line}\r\n") == []


async def test_a_real_stack_takes_what_was_rewritten() -> None:
    """aiortc finds the relay's address, and no other, in its own offer rewritten."""
    caller, callee = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    try:
        caller.addTransceiver("audio")
        caller.createDataChannel("text")
        await caller.setLocalDescription(await caller.createOffer())
        offer = with_only_candidate(caller.localDescription.sdp, "192.0.2.1", 5000)
        await callee.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        (transceiver,) = callee.getTransceivers()
        remote = transceiver.receiver.transport.transport.getRemoteCandidates()
        assert {(candidate.ip, candidate.port) for candidate in remote} == {("192.0.2.1", 5000)}
    finally:
        await caller.close()
        await callee.close()
