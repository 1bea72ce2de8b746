"""Session descriptions as text: what is one, what stands where, and how much of it is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.inputs.offers import FIREFOX_AUDIO_VIDEO_DATA
from rtc_server.errors import BadSdp
from rtc_server.protocols.sdp import MAX_LINES, MAX_SECTIONS, Lines, parse

HEAD = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n"


def test_a_description_has_a_head_and_sections() -> None:
    description = parse(HEAD + "a=x:1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:0\r\n" + VIDEO)
    assert list(description.head.values("x")) == ["1"]
    audio, video = description.sections
    assert (audio.kind, audio.port, audio.profile, audio.formats) == ("audio", 9, "UDP/TLS/RTP/SAVPF", ("111", "0"))
    assert (audio.mid, video.mid) == ("0", "1")


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n\r\n", " \r\n", "\t\n"], ids=repr)
def test_lines_end_in_many_ways(end: str) -> None:
    """RFC 8866, section 5: "parsers SHOULD be tolerant and also accept records terminated with a single newline"."""
    assert parse(FIREFOX_AUDIO_VIDEO_DATA.replace("\r\n", end)) == parse(FIREFOX_AUDIO_VIDEO_DATA)


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "\r\n",
        "hello",
        "v=1\r\n",
        "{}",
        VIDEO,
        HEAD + "garbage\r\n",
        HEAD + "m=audio\r\n",
        HEAD + "m=audio 9 UDP/TLS/RTP/SAVPF\r\n",
        HEAD + "m=audio x UDP/TLS/RTP/SAVPF 0\r\n",
        HEAD + "m=audio -1 UDP/TLS/RTP/SAVPF 0\r\n",
        HEAD + "m=audio 65536 UDP/TLS/RTP/SAVPF 0\r\n",
        HEAD + VIDEO + "x\r\n",
        HEAD + VIDEO + "é\r\n",
    ],
)
def test_garbage_is_refused(sdp: str) -> None:
    with pytest.raises(BadSdp) as caught:
        parse(sdp)
    assert type(caught.value) is BadSdp


def test_an_m_line_may_say_how_many_ports_and_have_more_spaces() -> None:
    (section,) = parse(HEAD + "m=audio  9/2   RTP/SAVPF 0  8\r\n").sections
    assert (section.port, section.formats) == (9, ("0", "8"))


def test_the_number_of_sections_is_bounded() -> None:
    assert len(parse(HEAD + VIDEO * MAX_SECTIONS).sections) == MAX_SECTIONS
    with pytest.raises(BadSdp, match="too many sections"):
        parse(HEAD + VIDEO * (MAX_SECTIONS + 1))


def test_the_number_of_lines_is_bounded() -> None:
    lines = MAX_LINES - HEAD.count("\r\n")
    assert len(parse(HEAD + "a=x\r\n" * lines).head.lines) == MAX_LINES
    with pytest.raises(BadSdp, match="lines"):
        parse(HEAD + "a=x\r\n" * (lines + 1))


LINES = Lines(
    ("a=mid:", "a=mid:two words", "a=mid: 0", "a=mid:1", "a=rtcp-mux", "a=midi:9", "a=port:x", "a=port:70000")
)


def test_attributes_are_found_by_their_whole_name() -> None:
    assert list(LINES.values("mid")) == ["", "two words", "0", "1"]
    assert list(LINES.values("rtcp-mux")) == [""]
    assert (LINES.has("rtcp-mux"), LINES.has("rtcp"), LINES.has("mi")) == (True, False, False)


def test_a_token_is_the_first_value_that_is_one() -> None:
    assert LINES.token("mid") == "0"
    assert LINES.token("port") == "x"
    assert LINES.token("rtcp-mux") is None
    assert Lines(("a=mid:" + "x" * 65,)).token("mid") is None


def test_a_number_is_the_first_value_that_fits() -> None:
    lines = Lines(
        ("a=port:", "a=port:-1", "a=port:٣", "a=port:" + "9" * 99, "a=port:70000", "a=port:5000", "a=port:6000")
    )
    assert lines.number("port", 65535) == 5000
    assert lines.number("port", 100) is None
    assert LINES.number("mid", 9) == 0


def test_groups_name_each_member_once() -> None:
    sdp = HEAD + "a=group:\r\na=group:LS 0 1\r\na=group:BUNDLE 0 1 0\r\na=group:BUNDLE\r\na=group:BUNDLE 2\r\n" + VIDEO
    assert list(parse(sdp).group("BUNDLE")) == [("0", "1"), (), ("2",)]


@given(st.text(st.characters(), max_size=300))
def test_arbitrary_text_raises_nothing_unexpected(text: str) -> None:
    for sdp in (text, "v=0\r\n" + text):
        try:
            parse(sdp)
        except BadSdp:
            continue
