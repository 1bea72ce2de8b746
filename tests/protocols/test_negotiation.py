"""What the WebRTC stack is shown of an offer, and what the answer says."""

from __future__ import annotations

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.inputs.offers import (
    BUNDLE_ONLY_BEHIND_VIDEO,
    CHROMIUM_AUDIO_VIDEO_AUDIO_DATA,
    GARBAGE,
    LIBWEBRTC_ON_A_PHONE,
    OBS_AUDIO_VIDEO,
    OLD_CHROMIUM_DATA_FIRST,
    RECORDED,
    TELEPHONE_GATEWAY,
    local_answer,
)
from rtc_server.errors import BadSdp, NoAudio, NoCommonCodec
from rtc_server.protocols.negotiation import offer_for_stack, write_answer
from rtc_server.protocols.offer import Offer, read_offer
from rtc_server.protocols.sdp import Section, parse
from tests.protocols.test_offer import audio_section, bundle, channel_section, offer, video_section


def answer(read: Offer) -> str:
    return write_answer(read, local_answer(read.channel is not None))


def sections(read: Offer) -> tuple[Section, ...]:
    return parse(answer(read)).sections


def m_lines(sdp: str) -> list[str]:
    return [line for line in sdp.split("\r\n") if line.startswith("m=")]


@pytest.mark.parametrize("sdp", RECORDED.values(), ids=RECORDED)
def test_the_stack_is_shown_nothing_but_what_is_understood(sdp: str) -> None:
    """It reads what we have read, and no line that it does not need."""
    read = read_offer(sdp)
    shown = offer_for_stack(read)
    audio, *channels = SessionDescription.parse(shown).media
    assert [(codec.payloadType, codec.clockRate) for codec in audio.rtp.codecs] == [
        (codec.payload_type, codec.clock_hz) for codec in read.audio.codecs
    ]
    assert (audio.direction, audio.rtcp_mux, audio.rtp.muxId) == (read.audio.direction, True, "audio")
    assert audio.ice is not None
    assert (audio.ice.usernameFragment, audio.ice.password) == (
        read.audio.transport.ufrag,
        read.audio.transport.password,
    )
    assert [media.sctp_port for media in channels] == ([] if read.channel is None else [read.channel.port])
    names = {line[2:].split(":")[0] for line in shown.split("\r\n") if line.startswith("a=")}
    assert names <= {
        *("group", "mid", "sendrecv", "sendonly", "rtcp-mux", "rtpmap", "ice-ufrag", "ice-pwd", "fingerprint", "setup"),
        *("sctp-port", "max-message-size"),
    }


def test_the_stack_bundles_what_is_bundled() -> None:
    pair = (audio_section(), channel_section())
    together, apart = read_offer(offer(*pair, head=bundle("2", "0"))), read_offer(offer(*pair))
    assert "a=group:BUNDLE audio channel\r\n" in offer_for_stack(together)
    assert "a=group" not in offer_for_stack(apart)
    assert "a=group" not in answer(apart)
    assert "a=group:BUNDLE 2 0\r\n" in answer(together)


def test_the_stack_is_told_of_ice_lite() -> None:
    assert "a=ice-lite\r\n" in offer_for_stack(read_offer(offer(audio_section(), head="a=ice-lite\r\n")))
    assert "a=ice-lite" not in answer(read_offer(offer(audio_section(), head="a=ice-lite\r\n")))


@pytest.mark.parametrize("sdp", RECORDED.values(), ids=RECORDED)
def test_an_answer_says_only_what_was_offered(sdp: str) -> None:
    read = read_offer(sdp)
    for section, offered in zip(sections(read), read.sections, strict=True):
        assert (section.kind, section.profile, section.mid) == (offered.kind, offered.profile, offered.mid)
        if section.port and section.kind == "audio":
            assert set(section.formats) <= set(offered.formats)
            assert {value.split(" ")[0] for value in section.values("rtpmap")} == set(section.formats)
            assert {value.split(" ")[0] for value in section.values("fmtp")} <= set(section.formats)
        assert not [name for name in ("extmap", "rtcp-fb", "bundle-only", "rtcp-mux-only") if section.has(name)]
    groups = list(parse(answer(read)).group("BUNDLE"))
    offered_groups = list(parse(sdp).group("BUNDLE"))
    kept = {section.mid for section in sections(read) if section.port}
    assert groups == [tuple(mid for mid in group if mid in kept) for group in offered_groups]


def test_declined_sections_keep_their_places_and_say_nothing_else() -> None:
    """RFC 3264, section 6: the same m-line with port 0; no codec, candidate or key of the offer comes back."""
    text = answer(read_offer(CHROMIUM_AUDIO_VIDEO_AUDIO_DATA))
    audio, video, second, data = text.split("m=")[1:]
    offered = m_lines(CHROMIUM_AUDIO_VIDEO_AUDIO_DATA)
    assert video == f"{offered[1][2:].replace(' 9 ', ' 0 ')}\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:1\r\n"
    assert second.startswith("audio 0 ")
    assert (audio.split(" ")[1], data.split(" ")[1]) == ("40000", "40000")


def test_a_declined_section_without_a_mid_gets_none() -> None:
    text = answer(read_offer(offer(audio_section(mid=None), "m=video 9 RTP/AVP 96\r\n")))
    assert "a=mid" not in text
    assert text.endswith("m=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n")


def test_the_taken_audio_section() -> None:
    (audio, _) = sections(read_offer(OBS_AUDIO_VIDEO))
    assert audio.lines == (
        *("c=IN IP4 192.0.2.9", "a=mid:0", "a=recvonly", "a=rtcp-mux", "a=rtpmap:111 opus/48000/2"),
        "a=fmtp:111 minptime=10;useinbandfec=1;stereo=0;maxaveragebitrate=32000",
        *("a=candidate:1 1 udp 2130706431 192.0.2.9 40000 typ host", "a=end-of-candidates"),
        *("a=ice-ufrag:host", "a=ice-pwd:hosthosthosthosthosthost"),
        f"a=fingerprint:sha-256 {':'.join(['AB'] * 32)}",
        "a=setup:active",
    )


def test_payload_types_are_the_offers() -> None:
    (audio, _) = sections(read_offer(LIBWEBRTC_ON_A_PHONE))
    assert audio.formats == ("35", "9", "0", "8")
    assert list(audio.values("rtpmap")) == ["35 opus/48000/2", "9 G722/8000", "0 PCMU/8000", "8 PCMA/8000"]
    (audio, _) = sections(read_offer(TELEPHONE_GATEWAY))
    assert (audio.profile, audio.formats) == ("RTP/SAVPF", ("8", "0"))


def test_an_old_data_channel_section_is_answered_in_its_form() -> None:
    data, _ = sections(read_offer(OLD_CHROMIUM_DATA_FIRST))
    assert (data.profile, data.formats) == ("DTLS/SCTP", ("5000",))
    assert list(data.values("sctpmap")) == ["5000 webrtc-datachannel 65535"]
    assert not data.has("sctp-port")
    new = sections(read_offer(BUNDLE_ONLY_BEHIND_VIDEO))[2]
    assert (new.port, new.formats, new.number("sctp-port", 65535)) == (40000, ("webrtc-datachannel",), 5000)


@pytest.mark.parametrize(
    ("offered", "answered"),
    [("sendrecv", "sendrecv"), ("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")],
)
def test_directions_are_turned_round(offered: str, answered: str) -> None:
    """Sources are named only by one that sends."""
    (audio,) = sections(read_offer(offer(audio_section("111", offered))))
    assert [line for line in audio.lines if line[2:] in ("sendrecv", "sendonly", "recvonly", "inactive")] == [
        f"a={answered}"
    ]
    sends = answered in ("sendrecv", "sendonly")
    assert (audio.has("msid"), audio.has("ssrc")) == (sends, sends)


def test_fingerprints_are_of_sha_256_and_of_what_was_offered() -> None:
    (plain,) = sections(read_offer(offer(audio_section())))
    assert [value.split(" ")[0] for value in plain.values("fingerprint")] == ["sha-256"]
    strong = f"fingerprint:sha-512 {':'.join(['0C'] * 64)}"
    (both,) = sections(read_offer(offer(audio_section("111", strong))))
    assert [value.split(" ")[0] for value in both.values("fingerprint")] == ["sha-256", "sha-512"]


def test_the_head_says_that_candidates_may_follow_and_names_nobody() -> None:
    head = parse(answer(read_offer(offer(audio_section(), head="s=secret\r\na=group:LS 0\r\n")))).head
    assert head.lines == ("v=0", "o=- 9 9 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=ice-options:trickle")


def assert_answered_or_refused(sdp: str) -> None:
    """What can be answered is shown to the stack in a form that it reads, and answered in the offer's shape."""
    try:
        read = read_offer(sdp)
    except (BadSdp, NoAudio, NoCommonCodec):
        return
    assert read.codec in {"OPUS", "PCMU", "PCMA", "G722"}
    shown = SessionDescription.parse(offer_for_stack(read))
    assert [media.kind for media in shown.media] == ["audio", "application"][: len(shown.media)]
    assert all(media.ice.usernameFragment and media.ice.password for media in shown.media)
    text = answer(read)
    answered = parse(text)
    assert len(m_lines(text)) == len(answered.sections) == len(read.sections)
    taken = {each.position for each in (read.audio, read.channel) if each is not None}
    for position, (mine, theirs) in enumerate(zip(answered.sections, read.sections, strict=True)):
        assert (mine.kind, mine.profile, mine.mid) == (theirs.kind, theirs.profile, theirs.mid)
        assert (mine.port > 0) is (position in taken)


SECTIONS = st.lists(
    st.sampled_from(
        [
            audio_section("111", "bundle-only", port=0),
            audio_section(),
            audio_section("0", mid="a"),
            audio_section("0", mid=None),
            audio_section("96", "rtpmap:96 iLBC/8000", mid="b"),
            audio_section(port=0, mid="c"),
            audio_section(mid="e", transport=[]),
            video_section(),
            channel_section(),
            channel_section("d", "bundle-only", port=0, transport=[]),
            "m=text 9 RTP/AVP 98\r\n",
        ]
    ),
    max_size=8,
)
HEADS = st.sampled_from(["", bundle("0", "2"), bundle("1", "0", "2", "d"), bundle("0") + bundle("2"), bundle("x")])


@given(SECTIONS, HEADS)
def test_an_answer_has_as_many_sections_as_the_offer_in_the_same_order(parts: list[str], head: str) -> None:
    """RFC 3264, section 6: "the answer MUST contain exactly the same number of "m=" lines as the offer"."""
    assert_answered_or_refused(offer(*parts, head=head))


LINES = st.sampled_from(
    [
        *("v=0", "s=-", "a=group:BUNDLE 0 1", "a=group:BUNDLE", "a=mid:0", "a=mid:", "a=bundle-only", "a=rtpmap:"),
        *("m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=audio 0 X 0", "m=audio 9 RTP/AVP 0", "m=video 9 X 96", "m=   ", "m="),
        *("a=rtpmap:111 opus/48000/2", "a=rtpmap:0", "m=application 9 DTLS/SCTP webrtc-datachannel", "a=sctpmap:", ""),
        *("a=ice-ufrag:abcd", "a=ice-pwd:x", f"a=fingerprint:sha-256 {':'.join(['0A'] * 32)}", "a=rtcp-mux"),
        *GARBAGE,
    ]
)


@given(st.text(st.characters(), max_size=300))
def test_arbitrary_text_raises_nothing_unexpected(text: str) -> None:
    assert_answered_or_refused(text)
    assert_answered_or_refused("v=0\r\n" + text)


@given(st.lists(LINES | st.text(st.characters(), max_size=20), max_size=30))
def test_arbitrary_lines_raise_nothing_unexpected(lines: list[str]) -> None:
    assert_answered_or_refused("\r\n".join(["v=0", *lines]))


@settings(max_examples=300)
@given(st.sampled_from(list(RECORDED.values())), st.data())
def test_damaged_offers_raise_nothing_unexpected(sdp: str, data: st.DataObject) -> None:
    """One stretch of an offer replaced by anything."""
    start = data.draw(st.integers(0, len(sdp)))
    end = data.draw(st.integers(start, min(len(sdp), start + 200)))
    assert_answered_or_refused(sdp[:start] + data.draw(st.text(st.characters(), max_size=20)) + sdp[end:])
