"""What is taken from an offer, and what is refused with which sentence."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from lab.inputs.offers import (
    BUNDLE_ONLY_BEHIND_VIDEO,
    CHROMIUM_AUDIO_VIDEO_AUDIO_DATA,
    CHROMIUM_MAX_BUNDLE_VIDEO_FIRST,
    ESP32_AUDIO_DATA,
    FIREFOX_AUDIO_VIDEO_DATA,
    GARBAGE,
    LIBWEBRTC_ON_A_PHONE,
    OLD_CHROMIUM_DATA_FIRST,
    RECORDED,
    SAFARI_AUDIO_DATA,
    TELEPHONE_GATEWAY,
    bare,
)
from rtc_server.errors import BadSdp, NoAudio, NoCommonCodec
from rtc_server.protocols.offer import Offer, read_offer
from rtc_server.protocols.sdp import MAX_SECTIONS
from rtc_server.protocols.transport import Setup
from rtc_server.protocols.trickle import SectionCandidate

HEAD = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
DIGEST = ":".join(["0A"] * 32)
TRANSPORT = ("ice-ufrag:abcd", "ice-pwd:0123456789012345678901", f"fingerprint:sha-256 {DIGEST}", "setup:actpass")


def attributes(*values: str) -> str:
    return "".join(f"a={value}\r\n" for value in values)


def audio_section(
    formats: str = "111",
    *more: str,
    port: int = 9,
    mid: str | None = "0",
    profile: str = "UDP/TLS/RTP/SAVPF",
    transport: Sequence[str] = (*TRANSPORT, "rtcp-mux"),
) -> str:
    """An audio section, Opus unless told otherwise."""
    maps = ["rtpmap:111 opus/48000/2"] if formats == "111" else []
    named = [] if mid is None else [f"mid:{mid}"]
    return f"m=audio {port} {profile} {formats}\r\n" + attributes(*named, *maps, *more, *transport)


def video_section(mid: str = "1", port: int = 9) -> str:
    return f"m=video {port} UDP/TLS/RTP/SAVPF 96\r\n" + attributes(f"mid:{mid}", "rtpmap:96 VP8/90000", *TRANSPORT)


def channel_section(
    mid: str = "2",
    *more: str,
    port: int = 9,
    m_line: str = "UDP/DTLS/SCTP webrtc-datachannel",
    transport: Sequence[str] = TRANSPORT,
) -> str:
    return f"m=application {port} {m_line}\r\n" + attributes(f"mid:{mid}", *more, *transport)


def offer(*sections: str, head: str = "") -> str:
    return HEAD + head + "".join(sections)


def bundle(*mids: str) -> str:
    return f"a=group:BUNDLE {' '.join(mids)}\r\n"


def taken(sdp: str) -> list[tuple[str, str | None]]:
    """Kind and mid of what is taken, in the offer's order."""
    read = read_offer(sdp)
    places = sorted(each.position for each in (read.audio, read.channel) if each is not None)
    return [(read.sections[place].kind, read.sections[place].mid) for place in places]


def payload_types(read: Offer) -> list[tuple[str, int]]:
    return [(codec.name, codec.payload_type) for codec in read.audio.codecs]


@pytest.mark.parametrize("sdp", RECORDED.values(), ids=RECORDED)
def test_what_clients_make_is_taken(sdp: str) -> None:
    assert read_offer(sdp).audio.transport.fingerprints


def test_chromium_video_and_second_audio_are_not_taken() -> None:
    read = read_offer(CHROMIUM_AUDIO_VIDEO_AUDIO_DATA)
    assert taken(CHROMIUM_AUDIO_VIDEO_AUDIO_DATA) == [("audio", "0"), ("application", "3")]
    assert payload_types(read) == [("OPUS", 111), ("G722", 9), ("PCMU", 0), ("PCMA", 8)]
    assert (read.bundles, read.bundled, read.sends, read.receives) == ((("0", "3"),), True, True, True)


def test_video_first_with_one_transport() -> None:
    """``bundlePolicy: max-bundle``: what the bundle is tagged with is declined, the rest still works."""
    assert taken(CHROMIUM_MAX_BUNDLE_VIDEO_FIRST) == [("audio", "1"), ("application", "2")]
    assert read_offer(CHROMIUM_MAX_BUNDLE_VIDEO_FIRST).bundles == (("1", "2"),)


def test_firefox_bundle_only_sections_are_not_rejected_ones() -> None:
    """RFC 9143, section 7.2.1: with a=bundle-only, port 0 does not mean that the offerer rejects."""
    assert taken(FIREFOX_AUDIO_VIDEO_DATA) == [("audio", "0"), ("application", "2")]


def test_bundle_only_sections_have_the_transport_of_their_bundle() -> None:
    """RFC 9143, section 7.2: they leave it out, and a=rtcp-mux with it; here even a declined section has it alone."""
    read = read_offer(BUNDLE_ONLY_BEHIND_VIDEO)
    assert read.channel is not None
    assert read.audio.transport == read.channel.transport
    assert read.audio.transport.ufrag == "k9fW"


def test_a_bare_data_channel_section_in_a_bundle_has_the_transport_of_audio() -> None:
    section = channel_section("2", "bundle-only", port=0, transport=())
    read = read_offer(offer(audio_section(), section, head=bundle("0", "2")))
    assert read.channel is not None
    assert read.channel.transport == read.audio.transport


def test_in_a_bundle_the_first_that_is_taken_decides() -> None:
    """RFC 9143, section 7.3.1: in the order of the group; sections that are declined or have no port do not."""
    other = ("ice-ufrag:tagg", "ice-pwd:tagtagtagtagtagtagtagtag", f"fingerprint:sha-256 {DIGEST}", "setup:active")
    sections = (audio_section(), channel_section(transport=other))
    data_first = read_offer(offer(*sections, head=bundle("2", "0")))
    assert data_first.channel is not None
    assert data_first.audio.transport == data_first.channel.transport
    assert (data_first.audio.transport.ufrag, data_first.audio.transport.setup) == ("tagg", Setup.ACTIVE)
    assert read_offer(offer(*sections, head=bundle("0", "2"))).audio.transport.ufrag == "abcd"
    for port in (9, 0):
        video = video_section(port=port).replace("abcd", "vvvv")
        assert read_offer(offer(video, *sections, head=bundle("1", "0", "2"))).audio.transport.ufrag == "abcd"


@pytest.mark.parametrize("head", ["", bundle("0"), bundle("0", "1"), bundle("0") + bundle("2"), "a=group:LS 0 2\r\n"])
def test_without_a_common_bundle_there_are_two_transports(head: str) -> None:
    other = ("ice-ufrag:data", "ice-pwd:datadatadatadatadatadata", f"fingerprint:sha-256 {DIGEST}", "setup:passive")
    read = read_offer(offer(audio_section(), channel_section(transport=other), head=head))
    assert read.channel is not None
    assert (read.bundled, read.audio.transport.ufrag, read.channel.transport.ufrag) == (False, "abcd", "data")
    assert read.generations == {("abcd", "0123456789012345678901"), ("data", "datadatadatadatadatadata")}


def test_a_bundle_only_section_outside_of_a_bundle_is_rejected() -> None:
    read = read_offer(offer(audio_section(), channel_section("2", "bundle-only", port=0)))
    assert read.channel is None
    video_alone = offer(audio_section(), video_section("1"), channel_section("2", "bundle-only", port=0))
    assert read_offer(video_alone.replace("s=-\r\n", f"s=-\r\n{bundle('1', '2')}")).channel is None
    with pytest.raises(NoAudio):
        read_offer(offer(audio_section("111", "bundle-only", port=0)))


def test_transport_attributes_of_the_session_hold_for_all_sections() -> None:
    """RFC 8839, section 5.4; RFC 8122, section 5; RFC 4145: a section's own win."""
    plain = (audio_section(transport=["rtcp-mux"]), channel_section(transport=[]))
    read = read_offer(offer(*plain, head=attributes(*TRANSPORT)))
    assert read.channel is not None
    assert read.audio.transport == read.channel.transport
    own = audio_section(transport=["rtcp-mux", f"fingerprint:sha-384 {':'.join(['0B'] * 48)}", "setup:passive"])
    transport = read_offer(offer(own, head=attributes(*TRANSPORT))).audio.transport
    assert [each.algorithm for each in transport.fingerprints] == ["sha-384"]
    assert (transport.setup, transport.ufrag) == (Setup.PASSIVE, "abcd")


def test_the_username_fragment_and_the_password_may_stand_apart() -> None:
    """RFC 8839, section 5.4: each at either level."""
    section = audio_section(transport=[TRANSPORT[0], *TRANSPORT[2:], "rtcp-mux"])
    read = read_offer(offer(section, head="a=ice-ufrag:session\r\na=ice-pwd:sessionsessionsessionsession\r\n"))
    assert (read.audio.transport.ufrag, read.audio.transport.password) == ("abcd", "sessionsessionsessionsession")


def test_ice_lite_is_of_the_session() -> None:
    assert read_offer(offer(audio_section(), head="a=ice-lite\r\n")).audio.transport.lite
    assert not read_offer(offer(audio_section())).audio.transport.lite


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        (("audio", "channel"), [0, 1]),
        (("audio", "video", "channel"), [0, 2]),
        (("video", "audio", "channel"), [1, 2]),
        (("audio", "audio", "video", "video", "channel"), [0, 4]),
        (("audio",), [0]),
    ],
    ids=str,
)
async def test_offers_of_aiortc(kinds: Sequence[str], wanted: list[int]) -> None:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind in kinds:
        connection.createDataChannel("text") if kind == "channel" else connection.addTransceiver(kind)
    await connection.setLocalDescription(await connection.createOffer())
    read = read_offer(connection.localDescription.sdp)
    await connection.close()
    assert [each.position for each in (read.audio, read.channel) if each is not None] == wanted
    assert read.codec == "OPUS"


@pytest.mark.parametrize(
    ("section", "codecs"),
    [
        (audio_section(), [("OPUS", 111)]),
        (audio_section("0"), [("PCMU", 0)]),
        (audio_section("8"), [("PCMA", 8)]),
        (audio_section("9"), [("G722", 9)]),
        (audio_section("0 8"), [("PCMU", 0), ("PCMA", 8)]),
        (audio_section("0 111", "rtpmap:111 opus/48000/2"), [("PCMU", 0), ("OPUS", 111)]),
        (audio_section("96 8", "rtpmap:96 iLBC/8000"), [("PCMA", 8)]),
        (audio_section("0 96", "rtpmap:96 opus/48000/2"), [("PCMU", 0), ("OPUS", 96)]),
        (audio_section("96 0", "rtpmap:96 OPUS/48000/2"), [("OPUS", 96), ("PCMU", 0)]),
        (audio_section("9", "rtpmap:9 G722/8000/1"), [("G722", 9)]),
        (audio_section("96 0", "rtpmap:0 PCMU/8000", "rtpmap:96 opus/48000/2"), [("OPUS", 96), ("PCMU", 0)]),
        (audio_section("96", "rtpmap:96 opus/48000"), [("OPUS", 96)]),
        (audio_section("96", "rtpmap: 96  opus/48000/2"), [("OPUS", 96)]),
        (audio_section("35 63", "rtpmap:35 opus/48000/2", "rtpmap:63 PCMA/8000"), [("OPUS", 35), ("PCMA", 63)]),
        (audio_section("96 97", "rtpmap:96 PCMU/8000", "rtpmap:97 PCMU/8000/2"), [("PCMU", 96)]),
        (audio_section("111", "fmtp:111 stereo=true", "fmtp:18 annexb=no", "fmtp:", "rtcp-fb:*"), [("OPUS", 111)]),
        (audio_section("70 0", "rtpmap:70 opus/48000/2"), [("PCMU", 0)]),
        (audio_section("0 0 00 \u0660 999 -1 x"), [("PCMU", 0)]),
    ],
)
def test_codecs_are_taken_in_the_offered_order(section: str, codecs: list[tuple[str, int]]) -> None:
    """Static payload types need no rtpmap line (RFC 3551); names are read in any case; the first is the one sent."""
    read = read_offer(offer(section))
    assert payload_types(read) == codecs
    assert read.codec == codecs[0][0]


@pytest.mark.parametrize(
    "section",
    [
        audio_section("96", "rtpmap:96 iLBC/8000"),
        audio_section("96", "rtpmap:96 opus/16000/2"),
        audio_section("96", "rtpmap:96 PCMU/16000"),
        audio_section("96"),
        audio_section("3 4 18"),
        audio_section("0", "rtpmap:0 L16/44100/2"),
        audio_section("96", "rtpmap:97 opus/48000/2"),
        audio_section("96", "rtpmap:96"),
        audio_section("101", "rtpmap:101 telephone-event/8000"),
    ],
)
def test_only_unknown_codecs_is_an_error_of_its_own(section: str) -> None:
    with pytest.raises(NoCommonCodec):
        read_offer(offer(section, channel_section()))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (audio_section(transport=TRANSPORT), "a=rtcp-mux"),
        (audio_section(transport=[*TRANSPORT[1:], "rtcp-mux"]), "a=ice-ufrag"),
        (audio_section(transport=["ice-ufrag:two words", *TRANSPORT[1:], "rtcp-mux"]), "a=ice-ufrag"),
        (audio_section(transport=[TRANSPORT[0], *TRANSPORT[2:], "rtcp-mux"]), "a=ice-pwd"),
        (audio_section(transport=[*TRANSPORT[:2], "setup:actpass", "rtcp-mux"]), "no a=fingerprint"),
        (
            audio_section(transport=[*TRANSPORT[:2], f"fingerprint:sha-1 {':'.join(['0A'] * 20)}", "rtcp-mux"]),
            "no hash function that is taken: sha-256",
        ),
        (audio_section(transport=[*TRANSPORT[:2], "fingerprint:sha-256 0A:0B", "rtcp-mux"]), "a=fingerprint is not"),
        (audio_section(transport=[*TRANSPORT[:3], "setup:holdconn", "rtcp-mux"]), "a=setup:holdconn"),
        (audio_section(profile="UDP/MSRP"), "protocol"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(section: str, words: str) -> None:
    with pytest.raises(BadSdp, match=words):
        read_offer(offer(section))


@pytest.mark.parametrize(
    "profile",
    [
        *("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP", "RTP/AVPF", "RTP/AVP"),
        *("TCP/DTLS/RTP/SAVPF", "TCP/DTLS/RTP/SAVP", "udp/tls/rtp/savpf"),
    ],
)
def test_every_protocol_of_rtp_is_dtls_srtp(profile: str) -> None:
    """RFC 8829, section 5.1.2."""
    assert read_offer(offer(audio_section(profile=profile))).codec == "OPUS"


def test_fingerprints_that_cannot_be_used_are_passed_over() -> None:
    sha_1, sha_512 = f"fingerprint:sha-1 {':'.join(['0A'] * 20)}", f"fingerprint:SHA-512 {':'.join(['0c'] * 64)}"
    garbage = ("fingerprint:", "fingerprint:sha-256", "fingerprint:sha-256 0A:0B", "fingerprint:md5 x")
    section = audio_section(transport=[*TRANSPORT, sha_1, sha_512, *garbage, TRANSPORT[2], "rtcp-mux"])
    fingerprints = read_offer(offer(section)).audio.transport.fingerprints
    assert [(each.algorithm, each.value[:2], len(each.value)) for each in fingerprints] == [
        ("sha-256", "0A", 95),
        ("sha-512", "0C", 191),
    ]


@pytest.mark.parametrize(
    ("lines", "setup"),
    [
        (["setup:actpass"], Setup.ACTPASS),
        (["setup:ACTIVE"], Setup.ACTIVE),
        (["setup:passive"], Setup.PASSIVE),
        (["setup:"], Setup.ACTIVE),
        (["setup:later", "setup:passive"], Setup.PASSIVE),
        ([], Setup.ACTIVE),
    ],
)
def test_who_begins_the_handshake(lines: list[str], setup: Setup) -> None:
    """Without a word, the client: which is what RFC 4145 says, and what one may say that meant actpass."""
    transport = [each for each in TRANSPORT if not each.startswith("setup:")]
    section = audio_section(transport=[*transport, *lines, "rtcp-mux"])
    assert read_offer(offer(section)).audio.transport.setup is setup


@pytest.mark.parametrize(
    ("session", "section", "direction"),
    [
        ([], [], "sendrecv"),
        ([], ["recvonly"], "recvonly"),
        (["sendonly"], [], "sendonly"),
        (["sendonly"], ["sendrecv"], "sendrecv"),
        ([], ["inactive", "sendrecv"], "inactive"),
        ([], ["SENDONLY", "sendonly:x"], "sendrecv"),
    ],
)
def test_directions(session: list[str], section: list[str], direction: str) -> None:
    """RFC 8866, section 6.7: "If none of the attributes is present, sendrecv SHOULD be assumed"."""
    read = read_offer(offer(audio_section("111", *section), head=attributes(*session)))
    assert read.audio.direction == direction
    assert (read.sends, read.receives) == (direction in ("sendrecv", "sendonly"), direction in ("sendrecv", "recvonly"))


@pytest.mark.parametrize(
    "first",
    [
        audio_section("96", "rtpmap:96 iLBC/8000"),
        audio_section(port=0),
        audio_section(transport=TRANSPORT),
        audio_section(transport=["rtcp-mux"]),
    ],
    ids=["no codec", "rejected", "no mux", "no transport"],
)
def test_a_second_audio_section_is_taken_when_the_first_cannot_be(first: str) -> None:
    assert taken(offer(first, audio_section(mid="5"))) == [("audio", "5")]


@pytest.mark.parametrize(
    "sdp",
    [
        HEAD,
        offer(video_section()),
        offer(channel_section()),
        offer(audio_section(port=0)),
        offer(video_section(), audio_section(port=0), channel_section()),
        offer(audio_section("96", "rtpmap:96 iLBC/8000", port=0)),
        "v=0",
    ],
    ids=["nothing", "video", "data", "rejected", "rejected among others", "rejected and unknown", "one line"],
)
def test_without_audio_there_is_nothing_to_do(sdp: str) -> None:
    with pytest.raises(NoAudio):
        read_offer(sdp)


def test_without_mids_there_is_no_bundle() -> None:
    read = read_offer(bare(SAFARI_AUDIO_DATA, "mid"))
    assert read.channel is not None
    assert (read.bundled, read.bundles) == (False, ())


def test_two_sections_of_one_name_are_refused() -> None:
    with pytest.raises(BadSdp, match="same a=mid"):
        read_offer(offer(audio_section(mid="0"), channel_section(mid="0")))


@pytest.mark.parametrize(
    ("section", "port", "by_map"),
    [
        (channel_section("2", "sctp-port:5001"), 5001, False),
        (channel_section(), 5000, False),
        (channel_section("2", "sctp-port:x", "sctp-port:70000"), 5000, False),
        (channel_section("2", "sctp-port:0"), None, False),
        (channel_section("2", "sctpmap:5002 webrtc-datachannel 1024", m_line="DTLS/SCTP 5002"), 5002, True),
        (channel_section("2", "sctpmap:5002 other 1024", m_line="DTLS/SCTP 5002"), None, False),
        (channel_section("2", "sctpmap:0 webrtc-datachannel 1024", m_line="DTLS/SCTP 0"), None, False),
        (channel_section("2", "sctp-port:5000", m_line="TCP/DTLS/SCTP webrtc-datachannel"), 5000, False),
        (channel_section("2", "sctp-port:5000", m_line="DTLS/SCTP webrtc-datachannel"), 5000, False),
        (channel_section("2", "sctp-port:5000", m_line="SCTP webrtc-datachannel"), None, False),
        (channel_section(port=0), None, False),
        (channel_section(transport=[]), None, False),
        (channel_section(m_line="UDP/BFCP *"), None, False),
        ("", None, False),
    ],
)
def test_data_channel_sections(section: str, port: int | None, by_map: bool) -> None:
    """The form of today and that of before RFC 8841; what cannot be served is declined, and audio serves on."""
    read = read_offer(offer(audio_section(), section))
    assert (read.channel and (read.channel.port, read.channel.by_map)) == (None if port is None else (port, by_map))


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ([], 65536),
        (["max-message-size:262144"], 262144),
        (["max-message-size:0"], 2**31 - 1),
        (["max-message-size:x", "max-message-size:" + "9" * 20], 65536),
    ],
)
def test_how_large_a_message_may_be(lines: list[str], size: int) -> None:
    """RFC 8841, section 6: 0 is no limit."""
    channel = read_offer(offer(audio_section(), channel_section("2", *lines))).channel
    assert channel is not None
    assert channel.max_message_bytes == size


def test_a_second_data_channel_section_is_taken_when_the_first_cannot_be() -> None:
    sections = (audio_section(), channel_section("2"), channel_section("3"))
    assert taken(offer(*sections)) == [("audio", "0"), ("application", "2")]
    sections = (audio_section(), channel_section("2", "sctp-port:0"), channel_section("3"))
    assert taken(offer(*sections)) == [("audio", "0"), ("application", "3")]


def test_devices_and_old_clients() -> None:
    small = read_offer(ESP32_AUDIO_DATA)
    assert (payload_types(small), small.channel and small.channel.port) == ([("PCMA", 8)], 5000)
    old = read_offer(OLD_CHROMIUM_DATA_FIRST)
    assert (payload_types(old), old.channel and old.channel.by_map) == ([("OPUS", 111), ("PCMU", 0)], True)
    assert payload_types(read_offer(TELEPHONE_GATEWAY)) == [("PCMA", 8), ("PCMU", 0)]
    assert payload_types(read_offer(LIBWEBRTC_ON_A_PHONE))[0] == ("OPUS", 35)


@pytest.mark.parametrize("sdp", RECORDED.values(), ids=RECORDED)
def test_lines_that_nobody_asks_for_change_nothing(sdp: str) -> None:
    garbage = "".join(f"{line}\r\n" for line in GARBAGE)
    noisy = sdp.replace("\r\nm=", f"\r\n{garbage}m=") + garbage
    before, after = read_offer(sdp), read_offer(noisy)
    assert (after.audio, after.channel, after.bundles) == (before.audio, before.channel, before.bundles)


def test_candidates_are_those_of_what_is_taken() -> None:
    """In the offer's order; one that stands in each section of a bundle counts once."""
    shared = "candidate:1 1 udp 1 192.0.2.1 1000 typ host"
    other = "candidate:2 1 udp 1 192.0.2.1 2000 typ host"
    sections = (audio_section("111", shared), channel_section("2", shared, other))
    found = read_offer(offer(*sections, head=bundle("0", "2"))).candidates
    assert found == (SectionCandidate(shared, "0", 0), SectionCandidate(other, "2", 1))
    found = read_offer(offer(*sections)).candidates
    assert [(each.text, each.index) for each in found] == [(shared, 0), (shared, 1), (other, 1)]
    elsewhere = ("ice-ufrag:else", "ice-pwd:elseelseelseelseelse", f"fingerprint:sha-256 {DIGEST}", "setup:active")
    apart = channel_section("2", shared, other, transport=elsewhere)
    found = read_offer(offer(audio_section("111", shared), apart)).candidates
    assert [(each.text, each.index) for each in found] == [(shared, 0), (shared, 1), (other, 1)]
    video = f"m=video 9 RTP/SAVPF 96\r\n{attributes('mid:1', other, *elsewhere)}"
    assert read_offer(offer(audio_section("111", shared), video)).candidates == (SectionCandidate(shared, "0", 0),)


@pytest.mark.parametrize(
    ("candidate", "place"),
    [
        (SectionCandidate("x", "0"), 0),
        (SectionCandidate("x", "2", 0), 1),
        (SectionCandidate("x", "other"), None),
        (SectionCandidate("x", "other", 1), 1),
        (SectionCandidate("x", None, 1), 1),
        (SectionCandidate("x", None), 0),
    ],
)
def test_a_candidate_says_which_section_it_is_for(candidate: SectionCandidate, place: int | None) -> None:
    assert read_offer(offer(audio_section(), channel_section())).place_of(candidate) == place


def test_the_number_of_sections_is_bounded() -> None:
    most = [video_section(str(number)) for number in range(MAX_SECTIONS - 1)]
    assert len(read_offer(offer(audio_section(mid="a"), *most)).sections) == MAX_SECTIONS
    with pytest.raises(BadSdp, match="too many sections"):
        read_offer(offer(audio_section(mid="a"), *most, video_section("z")))
