"""``python -m fuzz.fuzz_sdp``: offers. Each is refused with a typed error, or cut down to one that aiortc can read,
or refuses with an exception that the peer turns into a BadSdp; and the answer keeps every section in its place."""

from __future__ import annotations

import atheris

from fuzz.harness import fuzz

with atheris.instrument_imports(include=["rtc_server", "aiortc.sdp"]):
    from rtc_server import peer
    from rtc_server.errors import BadSdp, NoAudio, NoCommonCodec
    from rtc_server.protocols.sdp import narrow_offer, parse, widen_answer

from tests.support.offers import (
    CHROMIUM_AUDIO_VIDEO_AUDIO_DATA,
    CHROMIUM_MAX_BUNDLE_VIDEO_FIRST,
    FIREFOX_AUDIO_VIDEO_DATA,
)

_MAPPED = (ValueError, LookupError, AttributeError, TypeError, AssertionError, StopIteration)
"""What ``Peer.answer`` turns into a BadSdp."""
_SMALL = """v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111 0
c=IN IP4 0.0.0.0
a=mid:0
a=fingerprint:sha-256 5D:3E
a=setup:actpass
a=ice-ufrag:abcd
a=ice-pwd:0123456789012345678901
a=candidate:1 1 udp 2130706431 127.0.0.1 5000 typ host
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10
a=ssrc:1 cname:x
a=extmap:1 urn:x
a=rtcp:9 IN IP4 0.0.0.0
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
"""
_SEEDS = (_SMALL, FIREFOX_AUDIO_VIDEO_DATA, CHROMIUM_MAX_BUNDLE_VIDEO_FIRST, CHROMIUM_AUDIO_VIDEO_AUDIO_DATA)
_WORDS = (
    *("m=audio 9 UDP/TLS/RTP/SAVPF 0\n", "m=application 0 DTLS/SCTP 5000\n", "a=bundle-only\n", "a=sctpmap:5000 "),
    *("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=ssrc:", "a=ssrc-group:", "a=msid-semantic:", "a=ice-options:", "\x85"),
    *("a=candidate:", "raddr ", "rport ", "tcptype ", "typ ", "a=end-of-candidates", "a=rtcp-mux", "a=extmap:"),
    *("a=fingerprint:", "a=setup:", "a=mid:", "a=sctp-port:", "a=max-message-size:", "c=IN IP6 ::1", "a=group:"),
)


def test_one(data: bytes) -> None:
    sdp = data.decode(errors="surrogateescape")
    try:
        narrowed = narrow_offer(sdp)
    except (BadSdp, NoAudio, NoCommonCodec):
        return
    try:
        peer._require_transports(narrowed.sdp)
    except _MAPPED:
        return
    answer = widen_answer(narrowed.sdp, narrowed.declined)
    offered, answered = parse(sdp).sections, parse(answer).sections
    assert [section.kind for section in answered] == [section.kind for section in offered]


if __name__ == "__main__":
    fuzz(test_one, [seed.encode() for seed in _SEEDS], [word.encode() for word in _WORDS])
