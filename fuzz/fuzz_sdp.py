"""``python -m fuzz.fuzz_sdp``: offers. Each is refused with a typed error, or shown to the WebRTC stack in a form that
it reads, and answered in its shape."""

from __future__ import annotations

import atheris

from fuzz.harness import fuzz

with atheris.instrument_imports(include=["rtc_server.protocols", "aiortc.sdp"]):
    from aiortc.sdp import SessionDescription

    from rtc_server.errors import BadSdp, NoAudio, NoCommonCodec
    from rtc_server.protocols.negotiation import offer_for_stack, write_answer
    from rtc_server.protocols.offer import read_offer
    from rtc_server.protocols.sdp import parse

from lab.inputs.offers import RECORDED, local_answer

_SMALL = (
    """v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111 0
c=IN IP4 0.0.0.0
a=mid:0
a=fingerprint:sha-256 """
    + ":".join(["5D"] * 32)
    + """
a=rtcp-mux
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
)
_SEEDS = (_SMALL, *RECORDED.values())
_WORDS = (
    *("m=audio 9 UDP/TLS/RTP/SAVPF 0\n", "m=application 0 DTLS/SCTP 5000\n", "a=bundle-only\n", "a=sctpmap:5000 "),
    *("a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=ssrc:", "a=ssrc-group:", "a=msid-semantic:", "a=ice-options:", "\x85"),
    *("a=candidate:", "raddr ", "rport ", "tcptype ", "typ ", "a=end-of-candidates", "a=rtcp-mux", "a=extmap:"),
    *("a=fingerprint:", "a=setup:", "a=mid:", "a=sctp-port:", "a=max-message-size:", "c=IN IP6 ::1", "a=group:"),
)


def test_one(data: bytes) -> None:
    sdp = data.decode(errors="surrogateescape")
    try:
        offer = read_offer(sdp)
    except (BadSdp, NoAudio, NoCommonCodec):
        return
    shown = SessionDescription.parse(offer_for_stack(offer))
    assert [media.kind for media in shown.media] == ["audio", "application"][: 1 + (offer.channel is not None)]
    answered = parse(write_answer(offer, local_answer(offer.channel is not None))).sections
    taken = {each.position for each in (offer.audio, offer.channel) if each is not None}
    assert [(each.kind, each.profile, each.mid) for each in answered] == [
        (each.kind, each.profile, each.mid) for each in offer.sections
    ]
    assert {position for position, section in enumerate(answered) if section.port} == taken


if __name__ == "__main__":
    fuzz(test_one, [seed.encode() for seed in _SEEDS], [word.encode() for word in _WORDS])
