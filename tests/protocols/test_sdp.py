"""What is taken from an offer and what is declined in its place, with the offers that browsers make."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_server.errors import BadSdp, NoAudio, NoCommonCodec
from rtc_server.protocols.sdp import MAX_LINES, MAX_SECTIONS, narrow_offer, parse, widen_answer
from tests.support.offers import (
    CHROMIUM_AUDIO_VIDEO_AUDIO_DATA,
    CHROMIUM_MAX_BUNDLE_VIDEO_FIRST,
    FIREFOX_AUDIO_VIDEO_DATA,
)

RECORDED = [CHROMIUM_AUDIO_VIDEO_AUDIO_DATA, CHROMIUM_MAX_BUNDLE_VIDEO_FIRST, FIREFOX_AUDIO_VIDEO_DATA]

HEAD = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


def audio_section(formats: str = "111", *attributes: str, port: int = 9, mid: str = "0") -> str:
    """An audio section, Opus unless told otherwise."""
    maps = ["rtpmap:111 opus/48000/2"] if formats == "111" else []
    lines = [f"m=audio {port} UDP/TLS/RTP/SAVPF {formats}", "c=IN IP4 0.0.0.0", f"a=mid:{mid}"]
    return "".join(f"{line}\r\n" for line in [*lines, *(f"a={each}" for each in [*maps, *attributes])])


def video_section(mid: str = "1") -> str:
    return f"m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=rtpmap:96 VP8/90000\r\n"


def channel_section(mid: str = "2", port: int = 9) -> str:
    return f"m=application {port} UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n"


def offer(*sections: str) -> str:
    return HEAD + "".join(sections)


def m_lines(sdp: str) -> list[str]:
    return [line for line in sdp.split("\r\n") if line.startswith("m=")]


def kinds_and_mids(sdp: str) -> list[tuple[str, str | None]]:
    return [(section.kind, section.mid) for section in parse(sdp).sections]


def ports(sdp: str) -> list[str]:
    return [section.port for section in parse(sdp).sections]


async def aiortc_offer(*kinds: str) -> str:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        for kind in kinds:
            if kind == "channel":
                connection.createDataChannel("text")
            else:
                connection.addTransceiver(kind)
        return (await connection.createOffer()).sdp
    finally:
        await connection.close()


def test_chromium_video_and_second_audio_are_declined_in_place() -> None:
    """Audio, video, audio, data: the first audio and the data are taken, the others keep their m-lines."""
    sdp = CHROMIUM_AUDIO_VIDEO_AUDIO_DATA
    narrowed = narrow_offer(sdp)
    assert kinds_and_mids(narrowed.sdp) == [("audio", "0"), ("application", "3")]
    assert [(position, section.mid) for position, section in narrowed.declined] == [(1, "1"), (2, "2")]
    assert (narrowed.codec, narrowed.has_channel) == ("OPUS", True)
    answer = widen_answer(narrowed.sdp, narrowed.declined)
    assert kinds_and_mids(answer) == [("audio", "0"), ("video", "1"), ("audio", "2"), ("application", "3")]
    assert ports(answer) == ["9", "0", "0", "9"]


def test_chromium_video_first_with_one_transport() -> None:
    """``bundlePolicy: max-bundle``: what the bundle is tagged with is declined, the rest still works."""
    narrowed = narrow_offer(CHROMIUM_MAX_BUNDLE_VIDEO_FIRST)
    assert kinds_and_mids(narrowed.sdp) == [("audio", "1"), ("application", "2")]
    assert "a=group:BUNDLE 1 2\r\n" in narrowed.sdp
    assert ports(widen_answer(narrowed.sdp, narrowed.declined)) == ["0", "9", "9"]


def test_firefox_bundle_only_sections_are_not_rejected_ones() -> None:
    """RFC 9143, section 7.2.1: with a=bundle-only, port 0 does not mean that the offerer rejects."""
    narrowed = narrow_offer(FIREFOX_AUDIO_VIDEO_DATA)
    assert kinds_and_mids(narrowed.sdp) == [("audio", "0"), ("application", "2")]
    assert (narrowed.codec, narrowed.has_channel) == ("OPUS", True)
    assert [position for position, _ in narrowed.declined] == [1]
    assert "a=fingerprint:sha-256" in narrowed.sdp.split("m=", 1)[0]


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        (("audio", "channel"), [0, 1]),
        (("audio", "video", "channel"), [0, 2]),
        (("video", "audio", "channel"), [1, 2]),
        (("audio", "audio", "video", "video", "channel"), [0, 4]),
        (("audio",), [0]),
    ],
    ids=str,
)
async def test_offers_of_aiortc(kinds: Sequence[str], taken: list[int]) -> None:
    sdp = await aiortc_offer(*kinds)
    narrowed = narrow_offer(sdp)
    lines = m_lines(sdp)
    assert m_lines(narrowed.sdp) == [lines[position] for position in taken]
    assert narrowed.codec == "OPUS"
    assert narrowed.has_channel is ("channel" in kinds)


@pytest.mark.parametrize("sdp", RECORDED, ids=["chromium", "chromium, one transport", "firefox"])
def test_what_is_left_of_an_offer_is_left_as_it_was(sdp: str) -> None:
    """Of a section that is taken, nothing goes but header extensions and feedback; and aiortc reads it as we do."""
    narrowed = narrow_offer(sdp)
    offered = {section.mid: section for section in parse(sdp).sections}
    for section in parse(narrowed.sdp).sections:
        before = offered[section.mid].lines
        assert section.lines == tuple(line for line in before if not line.startswith(("a=extmap:", "a=rtcp-fb:")))
    read = SessionDescription.parse(narrowed.sdp)
    assert [(media.kind, media.rtp.muxId) for media in read.media] == kinds_and_mids(narrowed.sdp)


@pytest.mark.parametrize("sdp", RECORDED, ids=["chromium", "chromium, one transport", "firefox"])
def test_the_bundle_names_only_what_is_left(sdp: str) -> None:
    """A mid in the group without a section is an error in the WebRTC stack."""
    narrowed = narrow_offer(sdp)
    (group,) = [line for line in parse(narrowed.sdp).head if line.startswith("a=group:BUNDLE")]
    assert group.split(" ")[1:] == [mid for _, mid in kinds_and_mids(narrowed.sdp)]


def test_other_groups_and_lines_of_the_session_are_left_alone() -> None:
    sdp = HEAD + "a=group:BUNDLE 0 1\r\na=group:LS 0 1\r\na=msid-semantic: WMS\r\n" + audio_section() + video_section()
    head = parse(narrow_offer(sdp).sdp).head
    assert head[-3:] == ("a=group:BUNDLE 0", "a=group:LS 0 1", "a=msid-semantic: WMS")


def test_a_declined_section_says_so_and_nothing_else() -> None:
    """RFC 3264, section 6: the same m-line with port 0; no codec, candidate or key of the offer comes back."""
    sdp = CHROMIUM_AUDIO_VIDEO_AUDIO_DATA
    narrowed = narrow_offer(sdp)
    (_, video), _ = narrowed.declined
    assert video.rejected().lines == (
        m_lines(sdp)[1].replace("m=video 9 ", "m=video 0 "),
        "c=IN IP4 0.0.0.0",
        "a=inactive",
        "a=mid:1",
    )


def test_a_declined_section_without_a_mid_gets_none() -> None:
    narrowed = narrow_offer(offer(audio_section(), "m=video 9 RTP/AVP 96\r\n"))
    ((_, section),) = narrowed.declined
    assert section.rejected().lines == ("m=video 0 RTP/AVP 96", "c=IN IP4 0.0.0.0", "a=inactive")


@pytest.mark.parametrize(
    ("section", "codec"),
    [
        (audio_section(), "OPUS"),
        (audio_section("0"), "PCMU"),
        (audio_section("8"), "PCMA"),
        (audio_section("9"), "G722"),
        (audio_section("8 0"), "PCMA"),
        (audio_section("96 8", "rtpmap:96 iLBC/8000"), "PCMA"),
        (audio_section("0 96", "rtpmap:96 opus/48000/2"), "PCMU"),
        (audio_section("96 0", "rtpmap:96 OPUS/48000/2"), "OPUS"),
        (audio_section("9", "rtpmap:9 G722/8000/1"), "G722"),
        (audio_section("96 0", "rtpmap:0 PCMU/8000", "rtpmap:96 opus/48000/2"), "OPUS"),
    ],
)
def test_the_codec_is_the_first_offered_that_is_taken(section: str, codec: str) -> None:
    """Static payload types need no rtpmap line (RFC 3551); names are read in any case."""
    assert narrow_offer(offer(section)).codec == codec


@pytest.mark.parametrize(
    "section",
    [
        audio_section("96", "rtpmap:96 iLBC/8000"),
        audio_section("96", "rtpmap:96 opus/16000/2"),
        audio_section("96"),
        audio_section("3 4 18"),
        audio_section("0", "rtpmap:0 L16/44100/2"),
        audio_section("96", "rtpmap:97 opus/48000/2"),
        audio_section("96", "rtpmap:96"),
    ],
)
def test_only_unknown_codecs_is_an_error_of_its_own(section: str) -> None:
    with pytest.raises(NoCommonCodec):
        narrow_offer(offer(section, channel_section()))


def test_a_second_audio_section_is_taken_when_the_first_has_no_codec_of_ours() -> None:
    narrowed = narrow_offer(offer(audio_section("96", "rtpmap:96 iLBC/8000"), audio_section(mid="5")))
    assert kinds_and_mids(narrowed.sdp) == [("audio", "5")]
    assert [position for position, _ in narrowed.declined] == [0]


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
        narrow_offer(sdp)


def test_a_rejected_audio_section_is_passed_over() -> None:
    narrowed = narrow_offer(offer(audio_section(port=0), audio_section(mid="7")))
    assert kinds_and_mids(narrowed.sdp) == [("audio", "7")]


@pytest.mark.parametrize(
    ("section", "has_channel"),
    [
        (channel_section(), True),
        ("m=application 9 DTLS/SCTP 5000\r\na=mid:2\r\na=sctpmap:5000 webrtc-datachannel 1024\r\n", True),
        (channel_section(port=0), False),
        ("m=application 9 UDP/BFCP *\r\na=mid:2\r\n", False),
        ("", False),
    ],
    ids=["sctp-port", "sctpmap", "rejected", "another application", "none"],
)
def test_data_channel_sections(section: str, has_channel: bool) -> None:
    """The form of today and that of before RFC 8841; anything else that is called application is declined."""
    narrowed = narrow_offer(offer(audio_section(), section))
    assert narrowed.has_channel is has_channel
    assert len(narrowed.declined) == (1 if section and not has_channel else 0)


def test_a_second_data_channel_section_is_declined() -> None:
    narrowed = narrow_offer(offer(audio_section(), channel_section("2"), channel_section("3")))
    assert kinds_and_mids(narrowed.sdp) == [("audio", "0"), ("application", "2")]


def test_bare_newlines_are_read_too() -> None:
    """RFC 8866, section 5: "parsers SHOULD be tolerant and also accept records terminated with a single newline"."""
    assert narrow_offer(FIREFOX_AUDIO_VIDEO_DATA.replace("\r\n", "\n")) == narrow_offer(FIREFOX_AUDIO_VIDEO_DATA)


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "\r\n",
        "hello",
        "v=1\r\n",
        "{}",
        audio_section(),
        offer("garbage\r\n"),
        offer("m=audio\r\n"),
        offer("m=audio 9 UDP/TLS/RTP/SAVPF\r\n"),
        offer(audio_section() + "x\r\n"),
        offer(audio_section() + "é\r\n"),
    ],
    ids=["empty", "no lines", "hello", "version 1", "json", "no head", "garbage", "m", "no format", "x", "e acute"],
)
def test_garbage_is_refused(sdp: str) -> None:
    with pytest.raises(BadSdp) as caught:
        narrow_offer(sdp)
    assert type(caught.value) is BadSdp


def test_the_number_of_sections_is_bounded() -> None:
    most = [video_section(str(number)) for number in range(MAX_SECTIONS - 1)]
    assert len(narrow_offer(offer(audio_section(mid="a"), *most)).declined) == MAX_SECTIONS - 1
    with pytest.raises(BadSdp, match="too many sections"):
        narrow_offer(offer(audio_section(mid="a"), *most, video_section("z")))


def test_the_number_of_lines_is_bounded() -> None:
    lines = MAX_LINES - offer(audio_section()).count("\r\n")
    assert narrow_offer(offer(audio_section() + "a=x\r\n" * lines))
    with pytest.raises(BadSdp):
        narrow_offer(offer(audio_section() + "a=x\r\n" * (lines + 1)))


@pytest.mark.parametrize("separator", ["\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_no_line_ends_here_that_goes_on_in_the_webrtc_stack(separator: str) -> None:
    """aiortc ends lines where str.splitlines does: a section must not reach it disguised as part of a line."""
    sdp = offer(audio_section(), f"a=x:{separator}{video_section()}")
    try:
        narrowed = narrow_offer(sdp)
    except BadSdp:
        return
    read = SessionDescription.parse(narrowed.sdp)
    assert [media.kind for media in read.media] == [section.kind for section in parse(narrowed.sdp).sections]


SECTIONS = st.lists(
    st.sampled_from(
        [
            audio_section("111", "bundle-only", port=0),
            audio_section(),
            audio_section("0"),
            audio_section("96", "rtpmap:96 iLBC/8000"),
            audio_section(port=0),
            video_section(),
            channel_section(),
            "m=text 9 RTP/AVP 98\r\n",
        ]
    ),
    max_size=8,
)


@settings(deadline=None)
@given(SECTIONS)
def test_an_answer_has_as_many_sections_as_the_offer_in_the_same_order(sections: list[str]) -> None:
    """RFC 3264, section 6: "the answer MUST contain exactly the same number of "m=" lines as the offer"."""
    sdp = offer(*sections)
    try:
        narrowed = narrow_offer(sdp)
    except (NoAudio, NoCommonCodec):
        return
    answer = widen_answer(narrowed.sdp, narrowed.declined)
    declined = {position for position, _ in narrowed.declined}
    assert len(m_lines(answer)) == len(sections)
    for position, (mine, theirs) in enumerate(zip(m_lines(answer), m_lines(sdp), strict=True)):
        kind, port, *rest = theirs.split(" ")
        assert mine.split(" ") == [kind, "0" if position in declined else port, *rest]
    assert len(m_lines(narrowed.sdp)) + len(declined) == len(sections)


def assert_narrowed_or_refused(sdp: str) -> None:
    try:
        narrowed = narrow_offer(sdp)
    except (BadSdp, NoAudio, NoCommonCodec):
        return
    assert narrowed.codec in {"OPUS", "PCMU", "PCMA", "G722"}
    answer = widen_answer(narrowed.sdp, narrowed.declined)
    assert len(parse(answer).sections) == len(parse(sdp).sections)


LINES = st.sampled_from(
    [
        *("v=0", "s=-", "a=group:BUNDLE 0 1", "a=group:BUNDLE", "a=mid:0", "a=mid:", "a=bundle-only", "a=rtpmap:"),
        *("m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=audio 0 X 0", "m=audio 9 X 0", "m=video 9 X 96", "m=   ", "m="),
        *("a=rtpmap:111 opus/48000/2", "a=rtpmap:0", "m=application 9 X webrtc-datachannel", "a=sctpmap:", ""),
    ]
)


@settings(deadline=None)
@given(st.text(st.characters(), max_size=300))
def test_arbitrary_text_raises_nothing_unexpected(text: str) -> None:
    assert_narrowed_or_refused(text)
    assert_narrowed_or_refused("v=0\r\n" + text)


@settings(deadline=None)
@given(st.lists(LINES | st.text(st.characters(), max_size=20), max_size=30))
def test_arbitrary_lines_raise_nothing_unexpected(lines: list[str]) -> None:
    assert_narrowed_or_refused("\r\n".join(["v=0", *lines]))


@settings(deadline=None)
@given(st.sampled_from(RECORDED), st.data())
def test_damaged_offers_raise_nothing_unexpected(sdp: str, data: st.DataObject) -> None:
    """One stretch of a browser's offer replaced by anything."""
    start = data.draw(st.integers(0, len(sdp)))
    end = data.draw(st.integers(start, min(len(sdp), start + 200)))
    assert_narrowed_or_refused(sdp[:start] + data.draw(st.text(st.characters(), max_size=20)) + sdp[end:])
