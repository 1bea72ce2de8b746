"""Translates between WebRTC peers and aiortc: the offer that aiortc is given, and the answer that the peer gets.

The stack never sees a line that a peer has written, and a peer gets no line that its offer does not allow. Text and
values in, text out; no stack, no IO.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rtc_server.protocols.offer import Audio, Channel, Codec, Offer
from rtc_server.protocols.sdp import Section, parse
from rtc_server.protocols.transport import Transport

AUDIO_MID: Final = "audio"
CHANNEL_MID: Final = "channel"
"""What the sections are called towards the stack."""

_STACK_PORT: Final = 5000
"""Of SCTP, at this end."""
_OPUS_PARAMETERS: Final = "minptime=10;useinbandfec=1;stereo=0;maxaveragebitrate=32000"
"""What we want to receive of Opus (RFC 7587, section 6.1): mono, with error correction. 32 kbit/s is full-band mono
speech (section 3.1.1), with room for it."""
_REVERSED: Final = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}


def offer_for_stack(offer: Offer) -> str:
    """An offer of the sections that are taken.

    Without candidates: those are taken one by one. Looking up a name in one of them must not hold up the answer, and
    their end must not be told to the stack, which would then give up before the peer's own checks arrive from an
    address not listed. Without header extensions and RTCP feedback, which one stream of audio does not need: what is
    not negotiated need not be sent, parsed and paid for 50 times a second.
    """
    lines = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0"]
    if offer.audio.transport.lite:
        lines.append("a=ice-lite")
    if offer.channel is not None and offer.bundled:
        lines.append(f"a=group:BUNDLE {AUDIO_MID} {CHANNEL_MID}")
    lines += _stack_audio(offer.audio)
    if offer.channel is not None:
        lines += _stack_channel(offer.channel)
    return _text(lines)


def _stack_audio(audio: Audio) -> Iterator[str]:
    yield f"m=audio 9 UDP/TLS/RTP/SAVPF {_payload_types(audio.codecs)}"
    yield f"a=mid:{AUDIO_MID}"
    yield f"a={audio.direction}"
    yield "a=rtcp-mux"
    for codec in audio.codecs:
        yield f"a=rtpmap:{codec.rtpmap}"
    yield from _stack_transport(audio.transport)


def _stack_channel(channel: Channel) -> Iterator[str]:
    yield "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
    yield f"a=mid:{CHANNEL_MID}"
    yield f"a=sctp-port:{channel.port}"
    yield f"a=max-message-size:{channel.max_message_bytes}"
    yield from _stack_transport(channel.transport)


def _stack_transport(transport: Transport) -> Iterator[str]:
    yield f"a=ice-ufrag:{transport.ufrag}"
    yield f"a=ice-pwd:{transport.password}"
    for fingerprint in transport.fingerprints:
        yield f"a=fingerprint:{fingerprint.algorithm} {fingerprint.value}"
    yield f"a=setup:{transport.setup}"


def write_answer(offer: Offer, local: str) -> str:
    """The answer to ``offer``, of which ``local`` is the stack's own: its addresses, keys and sources.

    RFC 3264, section 6: the same m-lines in the same order, those that are declined with port 0.
    """
    own = parse(local)
    own_audio, *own_channel = own.sections
    lines = ["v=0", *(line for line in own.head.lines if line.startswith("o=")), "s=-", "t=0 0"]
    lines += [f"a=group:BUNDLE {' '.join(mids)}" for mids in offer.bundles]
    lines.append("a=ice-options:trickle")  # RFC 8840, section 4.1.3: further candidates may come
    for position, section in enumerate(offer.sections):
        if position == offer.audio.position:
            lines += _answer_audio(section, offer.audio, own_audio)
        elif offer.channel is not None and position == offer.channel.position:
            lines += _answer_channel(section, offer.channel, own_channel[0])
        else:
            lines += _declined(section)
    return _text(lines)


def _answer_audio(section: Section, audio: Audio, own: Section) -> Iterator[str]:
    direction = _REVERSED[audio.direction]
    yield f"m=audio {own.port} {section.profile} {_payload_types(audio.codecs)}"
    yield from _address(own)
    yield from _mid(section)
    yield f"a={direction}"
    yield "a=rtcp-mux"
    if direction in ("sendrecv", "sendonly"):
        yield from (f"a={name}:{value}" for name in ("msid", "ssrc") for value in own.values(name))
    for codec in audio.codecs:
        yield f"a=rtpmap:{codec.rtpmap}"
        if codec.is_opus:
            yield f"a=fmtp:{codec.payload_type} {_OPUS_PARAMETERS}"
    yield from _answer_transport(audio.transport, own)


def _answer_channel(section: Section, channel: Channel, own: Section) -> Iterator[str]:
    formats = str(_STACK_PORT) if channel.by_map else "webrtc-datachannel"
    yield f"m=application {own.port} {section.profile} {formats}"
    yield from _address(own)
    yield from _mid(section)
    yield f"a=sctpmap:{_STACK_PORT} webrtc-datachannel 65535" if channel.by_map else f"a=sctp-port:{_STACK_PORT}"
    yield from (f"a=max-message-size:{size}" for size in own.values("max-message-size"))
    yield from _answer_transport(channel.transport, own)


def _answer_transport(transport: Transport, own: Section) -> Iterator[str]:
    """RFC 8122, section 5: SHA-256 at least; beside it only what the offer has as well, for some parsers take the last
    fingerprint for the only one."""
    for name in ("candidate", "end-of-candidates", "ice-ufrag", "ice-pwd"):
        yield from (f"a={name}:{value}" if value else f"a={name}" for value in own.values(name))
    wanted = {"sha-256", *(fingerprint.algorithm for fingerprint in transport.fingerprints)}
    yield from (f"a=fingerprint:{value}" for value in own.values("fingerprint") if value.split(" ")[0] in wanted)
    yield from (f"a=setup:{value}" for value in own.values("setup"))


def _declined(section: Section) -> Iterator[str]:
    yield f"m={section.kind} 0 {section.profile} {' '.join(section.formats)}"
    yield "c=IN IP4 0.0.0.0"
    yield "a=inactive"
    yield from _mid(section)


def _address(own: Section) -> Iterator[str]:
    return (line for line in own.lines if line.startswith("c="))


def _mid(section: Section) -> Iterator[str]:
    if section.mid is not None:
        yield f"a=mid:{section.mid}"


def _payload_types(codecs: tuple[Codec, ...]) -> str:
    return " ".join(str(codec.payload_type) for codec in codecs)


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\r\n" for line in lines)
