"""What this server takes from an offer, and what it says about the rest.

An offer may hold sections that we decline: video, a second audio section, anything unknown. They are cut
out before the WebRTC stack sees the offer (aiortc fails the whole offer over one section whose codecs it
does not know) and come back in the answer as rejected, in their places, as RFC 3264 section 6 asks: a
rejected stream keeps its m-line with port 0. Text in, text out; no stack, no IO.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rtc_server.errors import BadSdp, NoAudio, NoCommonCodec
from rtc_server.protocols.trickle import SectionCandidate

MAX_SECTIONS: Final = 32
MAX_LINES: Final = 4000

_STATIC_CODECS: Final = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000"}
"""RFC 3551 table 4: payload types that need no rtpmap line."""
_OPUS_PARAMETERS: Final = "minptime=10;useinbandfec=1;stereo=0;maxaveragebitrate=32000"
"""32 kbit/s is full-band mono speech (RFC 7587, section 3.1.1), with room for error correction."""
_TAKEN_CODECS: Final = {"OPUS/48000", "PCMU/8000", "PCMA/8000", "G722/8000"}


@dataclass(frozen=True, slots=True)
class Section:
    """One m-line and the lines under it."""

    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.lines[0][2:].split(" ", 1)[0]

    @property
    def port(self) -> str:
        return self.lines[0].split(" ")[1]

    @property
    def formats(self) -> list[str]:
        return self.lines[0].split(" ")[3:]

    @property
    def mid(self) -> str | None:
        return self.attribute("mid")

    def attribute(self, name: str) -> str | None:
        prefix = f"a={name}:"
        return next((line[len(prefix) :] for line in self.lines if line.startswith(prefix)), None)

    @property
    def candidates(self) -> list[SectionCandidate]:
        return [SectionCandidate(line[2:], self.mid) for line in self.lines if line.startswith("a=candidate:")]

    def without_extras(self) -> Section:
        """Without header extensions and RTCP feedback, none of which one stream of audio needs: what is not
        negotiated need not be sent, parsed and paid for 50 times a second. And without candidates, which are taken
        one by one: looking up a name in one of them must not hold up the answer, and their end must not be told to
        the WebRTC stack, which would then give up before the peer's own checks arrive from an address not listed."""
        extras = ("a=extmap:", "a=rtcp-fb:", "a=candidate:", "a=end-of-candidates")
        return Section(tuple(line for line in self.lines if not line.startswith(extras)))

    def with_mux_only(self) -> Section:
        """RTP and RTCP share a port, and there is no other way here (RFC 8858)."""
        lines = [
            each for line in self.lines for each in ([line, "a=rtcp-mux-only"] if line == "a=rtcp-mux" else [line])
        ]
        return Section(tuple(lines))

    def with_opus_parameters(self) -> Section:
        """With what we want to receive of Opus (RFC 7587, section 6.1): mono, with error correction."""
        lines: list[str] = []
        for line in self.lines:
            lines.append(line)
            if line.startswith("a=rtpmap:") and " OPUS/" in line.upper():
                lines.append(f"a=fmtp:{line[len('a=rtpmap:') :].split(' ', 1)[0]} {_OPUS_PARAMETERS}")
        return Section(tuple(lines))

    def rejected(self) -> Section:
        """The same m-line with port 0, as an answer declines it."""
        fields = self.lines[0].split(" ")
        fields[1] = "0"
        lines = [" ".join(fields), "c=IN IP4 0.0.0.0", "a=inactive"]
        if self.mid is not None:
            lines.append(f"a=mid:{self.mid}")
        return Section(tuple(lines))


@dataclass(frozen=True, slots=True)
class Description:
    """A session description cut into its session-level lines and its sections."""

    head: tuple[str, ...]
    sections: tuple[Section, ...]

    def render(self) -> str:
        lines = [*self.head, *(line for section in self.sections for line in section.lines)]
        return "\r\n".join(lines) + "\r\n"


@dataclass(frozen=True, slots=True)
class NarrowedOffer:
    """An offer cut down to what we take, and what is needed to answer the whole of it.

    ``sdp``: for the WebRTC stack. ``declined``: position in the offer and section of each that was cut out.
    ``codec``: the audio codec that will be used both ways (``OPUS``, ``G722``, ``PCMU``, ``PCMA``): the first
    one offered that we take. ``has_channel``: whether a data-channel section is left. ``sends``, ``receives``:
    whether the peer wants to send and to receive audio. ``ufrag``, ``password``: of its ICE generation.
    """

    sdp: str
    declined: tuple[tuple[int, Section], ...]
    codec: str
    has_channel: bool
    sends: bool = True
    receives: bool = True
    candidates: tuple[SectionCandidate, ...] = ()
    ufrag: str | None = None
    password: str | None = None


def parse(sdp: str) -> Description:
    """Cut a description into head and sections. Raises BadSdp where it has no such shape."""
    # Where the WebRTC stack ends lines too: it must not find a section where we have seen part of a line.
    lines = [line for line in sdp.splitlines() if line]
    if not lines or lines[0] != "v=0" or len(lines) > MAX_LINES:
        raise BadSdp
    if any(len(line) < 2 or line[1] != "=" for line in lines):  # noqa: PLR2004 - RFC 8866: <type>=<value>
        raise BadSdp
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")]
    if len(starts) > MAX_SECTIONS:
        raise BadSdp("The offer has too many sections.")
    sections = tuple(Section(tuple(lines[start:end])) for start, end in pairwise([*starts, len(lines)]))
    if any(len(section.lines[0].split(" ")) < 4 for section in sections):  # noqa: PLR2004 - kind port proto fmt
        raise BadSdp
    return Description(tuple(lines[: starts[0]] if starts else lines), sections)


def narrow_offer(sdp: str) -> NarrowedOffer:
    """Keep the first usable audio section and the first data-channel section of an offer.

    Raises BadSdp, NoAudio (no audio section, or only rejected ones), NoCommonCodec.
    """
    offer = parse(sdp)
    kept: list[Section] = []
    declined: list[tuple[int, Section]] = []
    for position, section in enumerate(offer.sections):
        wanted = section.kind in {"audio", "application"} and all(section.kind != other.kind for other in kept)
        if wanted and _usable(section):
            kept.append(section)
        else:
            declined.append((position, section))
    audio = next((section for section in kept if section.kind == "audio"), None)
    if audio is None:
        offered = [section for section in offer.sections if section.kind == "audio" and section.port != "0"]
        raise NoCommonCodec if offered else NoAudio
    mids = {section.mid for section in kept}
    head = tuple(_keep_in_bundle(line, mids) for line in offer.head)
    return NarrowedOffer(
        sdp=Description(head, tuple(section.without_extras() for section in kept)).render(),
        declined=tuple(declined),
        codec=_taken_codecs(audio)[0].split("/")[0],
        has_channel=any(section.kind == "application" for section in kept),
        sends=_direction(offer, audio) in ("sendrecv", "sendonly"),
        receives=_direction(offer, audio) in ("sendrecv", "recvonly"),
        candidates=tuple(candidate for section in kept for candidate in section.candidates),
        ufrag=_inherited(offer, audio, "ice-ufrag"),
        password=_inherited(offer, audio, "ice-pwd"),
    )


def widen_answer(sdp: str, declined: tuple[tuple[int, Section], ...]) -> str:
    """Put the declined sections back into an answer, rejected, where the offer had them; and say how we want Opus,
    that further candidates may come (RFC 8840, section 4.1.3), and that RTCP has no port of its own."""
    answer = parse(sdp)
    sections = [section.with_opus_parameters().with_mux_only() for section in answer.sections]
    for position, section in declined:
        sections.insert(position, section.rejected())
    head = tuple(line for line in answer.head if not line.startswith("a=ice-options:"))
    return Description((*head, "a=ice-options:trickle"), tuple(sections)).render()


def _direction(description: Description, section: Section) -> str:
    """RFC 8866, section 6.7: of the section, else of the session, else both ways."""
    known = {"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"}
    return next((line[2:] for line in (*section.lines, *description.head) if line in known), "sendrecv")


def _inherited(description: Description, section: Section, name: str) -> str | None:
    """An attribute of the section, else of the session."""
    return section.attribute(name) or Section(("m= ", *description.head)).attribute(name)


def _usable(section: Section) -> bool:
    # RFC 9143 section 7.2.1: with a=bundle-only a port of 0 does not mean rejected.
    if section.port == "0" and "a=bundle-only" not in section.lines:
        return False
    if section.kind == "application":
        return "webrtc-datachannel" in section.formats or section.attribute("sctpmap") is not None
    return bool(_taken_codecs(section))


def _taken_codecs(section: Section) -> list[str]:
    """The section's codecs that we take, in the order in which it prefers them."""
    mapped = {}
    for line in section.lines:
        if line.startswith("a=rtpmap:"):
            payload_type, _, name = line[len("a=rtpmap:") :].partition(" ")
            mapped[payload_type] = "/".join(name.upper().split("/")[:2])
    names = (mapped.get(fmt) or _STATIC_CODECS.get(fmt, "") for fmt in section.formats)
    return [name for name in names if name in _TAKEN_CODECS]


def _keep_in_bundle(line: str, mids: set[str | None]) -> str:
    if not line.startswith("a=group:BUNDLE"):
        return line
    return " ".join(["a=group:BUNDLE", *(mid for mid in line.split(" ")[1:] if mid in mids)])
