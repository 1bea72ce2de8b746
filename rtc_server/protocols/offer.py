"""Parses an offer into what this server supports, and drops everything else.

The first audio section and the first data-channel section that can be served are taken; all else is declined in its
place. What cannot be served at all is refused with a sentence that names it. Text in, values out; no stack, no IO.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rtc_server.errors import BadSdp, NoAudio, NoCommonCodec, ServerError
from rtc_server.protocols.sdp import Description, Section, parse
from rtc_server.protocols.transport import Transport, ice_of, read_transport
from rtc_server.protocols.trickle import SectionCandidate

_RTP_PROFILE: Final = re.compile(r"((UDP|TCP)/(TLS|DTLS)/)?RTP/S?AVPF?", re.IGNORECASE)
"""RFC 8829, section 5.1.2: what is to be taken, and is DTLS-SRTP whatever it says."""
_DTLS_SCTP: Final = re.compile(r"((UDP|TCP)/)?DTLS/SCTP", re.IGNORECASE)
_RTPMAP: Final = re.compile(r"(\d{1,3})\s+([^\s/]{1,32})/(\d{1,6})(?:/(\d{1,2}))?")
_SCTPMAP: Final = re.compile(r"([0-9]{1,5})\s+webrtc-datachannel(?:\s.*)?")
_SCTP_PORT: Final = 5000
_MAX_PORT: Final = 65535
_MAX_MESSAGE_BYTES: Final = 2**31 - 1
_DEFAULT_MESSAGE_BYTES: Final = 65536
"""RFC 8841, section 6.1, where the attribute is missing."""

DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")


@dataclass(frozen=True, slots=True)
class Codec:
    """``name``: ``OPUS``, ``G722``, ``PCMU`` or ``PCMA``; ``payload_type``: the offer's number for it."""

    name: str
    payload_type: int

    @property
    def is_opus(self) -> bool:
        return self.name == "OPUS"

    @property
    def clock_hz(self) -> int:
        """RFC 3551, section 4.5.2: G.722 is said to have 8 kHz, though it samples at 16."""
        return 48_000 if self.is_opus else 8_000

    @property
    def rtpmap(self) -> str:
        """RFC 7587, section 7: Opus is always said to have two channels."""
        return f"{self.payload_type} {'opus/48000/2' if self.is_opus else f'{self.name}/{self.clock_hz}'}"


_STATIC: Final = {"0": "PCMU", "8": "PCMA", "9": "G722"}
"""RFC 3551, table 4: payload types that need no rtpmap line."""
_CLOCKS: Final = {"OPUS": "48000", "G722": "8000", "PCMU": "8000", "PCMA": "8000"}


@dataclass(frozen=True, slots=True)
class Audio:
    """The audio section that is taken. ``position``: among the offer's; ``direction``: as the client says it."""

    position: int
    codecs: tuple[Codec, ...]
    direction: str
    transport: Transport


@dataclass(frozen=True, slots=True)
class Channel:
    """The data-channel section that is taken. ``port``: of the client's SCTP. ``by_map``: in the form of before
    RFC 8841, with ``a=sctpmap``."""

    position: int
    port: int
    max_message_bytes: int
    by_map: bool
    transport: Transport


@dataclass(frozen=True, slots=True)
class Offer:
    """``sections``: all of them, for their places in the answer. ``bundles``: the BUNDLE groups, as offered, of what is
    taken. ``candidates``: of the transports that are taken. ``generations``: every username fragment and password."""

    sections: tuple[Section, ...]
    audio: Audio
    channel: Channel | None
    bundles: tuple[tuple[str, ...], ...]
    candidates: tuple[SectionCandidate, ...]
    generations: frozenset[tuple[str, str]]

    @property
    def codec(self) -> str:
        """The audio codec that is sent: the first offered that we take."""
        return self.audio.codecs[0].name

    @property
    def sends(self) -> bool:
        """Whether the client wants to send audio."""
        return self.audio.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """Whether the client wants to receive audio."""
        return self.audio.direction in ("sendrecv", "recvonly")

    @property
    def bundled(self) -> bool:
        """Whether the sections that are taken share one transport."""
        if self.channel is None:
            return True
        mids = {self.sections[self.audio.position].mid, self.sections[self.channel.position].mid}
        return any(mids <= set(bundle) for bundle in self.bundles)

    def place_of(self, candidate: SectionCandidate) -> int | None:
        """The position of the section that a candidate is for; None if there is no such section."""
        named = [i for i, section in enumerate(self.sections) if section.mid == candidate.mid is not None]
        if named or candidate.index is not None:
            return named[0] if named else candidate.index
        return 0 if candidate.mid is None else None


def read_offer(sdp: str) -> Offer:
    """Raises NoAudio (no audio section, or only rejected ones), NoCommonCodec, BadSdp: what is wrong with the first
    audio section, if no other can be served."""
    return _Reader(parse(sdp)).read()


class _Reader:
    def __init__(self, description: Description) -> None:
        self._head = description.head
        self._sections = description.sections
        self._bundles = list(description.group("BUNDLE"))
        mids = [section.mid for section in self._sections if section.mid is not None]
        if len(set(mids)) < len(mids):
            raise BadSdp("Two sections of the offer have the same a=mid.")

    def read(self) -> Offer:
        refusals: list[ServerError] = []
        for audio in self._offered("audio"):
            try:
                codecs = self._audio_codecs(audio)
                return self._with_channel(audio, codecs)
            except (BadSdp, NoCommonCodec) as refusal:
                refusals.append(refusal)
        raise refusals[0] if refusals else NoAudio()

    def _audio_codecs(self, audio: Section) -> tuple[Codec, ...]:
        codecs = _codecs(audio)
        if not codecs:
            raise NoCommonCodec
        if not _RTP_PROFILE.fullmatch(audio.profile):
            raise BadSdp("The audio section's protocol is not one of RTP, such as UDP/TLS/RTP/SAVPF.")
        # RFC 9143, section 7.2: one that is bundle-only leaves out what the bundle says, which is multiplexed always.
        if audio.port and not audio.has("rtcp-mux"):
            raise BadSdp("The audio section has no a=rtcp-mux: RTP and RTCP have to share a port here.")
        return codecs

    def _with_channel(self, audio: Section, codecs: tuple[Codec, ...]) -> Offer:
        """With the first section of data channels that can be served; without one, audio is served all the same."""
        for section in self._offered("application"):
            port, by_map = _sctp_port(section)
            if port is None or not _DTLS_SCTP.fullmatch(section.profile):
                continue
            if not section.port and audio not in self._members(section):  # bundled with nothing that is taken
                continue
            try:
                transport = self._transport(section, audio)
                own = self._transport(audio, section)
            except BadSdp:
                continue
            limit = section.number("max-message-size", _MAX_MESSAGE_BYTES)
            size = _DEFAULT_MESSAGE_BYTES if limit is None else limit or _MAX_MESSAGE_BYTES
            return self._offer(audio, codecs, own, Channel(self._place(section), port, size, by_map, transport))
        return self._offer(audio, codecs, self._transport(audio), None)

    def _offer(self, audio: Section, codecs: tuple[Codec, ...], transport: Transport, channel: Channel | None) -> Offer:
        second = None if channel is None else self._sections[channel.position]
        taken = {audio.mid} if second is None else {audio.mid, second.mid}
        bundles = [tuple(mid for mid in bundle if mid in taken) for bundle in self._bundles]
        transports = {transport} if channel is None else {transport, channel.transport}
        generations = (pair for section in self._sections for pair in ice_of(section, self._head))
        return Offer(
            self._sections,
            Audio(self._place(audio), codecs, self._direction(audio), transport),
            channel,
            tuple(bundle for bundle in bundles if bundle),
            self._candidates(transports, shared=second is None or second in self._members(audio)),
            frozenset([*generations, *((each.ufrag, each.password) for each in transports)]),
        )

    def _offered(self, kind: str) -> Iterator[Section]:
        """Those that are not rejected. RFC 9143, section 7.2.1: with a=bundle-only, and in a bundle, a port of 0 does
        not mean rejected."""
        for section in self._sections:
            if section.kind == kind and (section.port or (section.has("bundle-only") and self._members(section))):
                yield section

    def _place(self, section: Section) -> int:
        return next(i for i, each in enumerate(self._sections) if each is section)

    def _members(self, section: Section) -> list[Section]:
        """The sections of its bundle, in the bundle's order; none if it is in no bundle."""
        bundle = next((mids for mids in self._bundles if section.mid in mids), ())
        by_mid = {each.mid: each for each in self._sections}
        return [by_mid[mid] for mid in bundle if mid in by_mid]

    def _transport(self, section: Section, other: Section | None = None) -> Transport:
        """Transport of a section that is taken beside an ``other`` one. In a bundle it is that of the first of those
        taken that has a port of its own (RFC 9143, section 7.3.1); what that one leaves out may stand with any other of
        the bundle, even if it is declined. Raises BadSdp."""
        members = self._members(section)
        taken = [each for each in members if each in (section, other)] or [section]
        tagged = next((each for each in taken if each.port), taken[0])
        return read_transport([tagged, self._head, *taken, *members], self._head)

    def _direction(self, section: Section) -> str:
        """RFC 8866, section 6.7: of the section, else of the session, else both ways."""
        lines = (*section.lines, *self._head.lines)
        return next((line[2:] for line in lines if line[:2] == "a=" and line[2:] in DIRECTIONS), "sendrecv")

    def _candidates(self, transports: set[Transport], shared: bool) -> tuple[SectionCandidate, ...]:
        """Candidates of the sections that share one of these transports. ``shared``: one that stands in several
        sections counts once."""
        fragments = {transport.ufrag for transport in transports}
        found: dict[tuple[str, int], SectionCandidate] = {}
        for position, section in enumerate(self._sections):
            place = 0 if shared else position
            if all(ufrag in fragments for ufrag, _ in ice_of(section, self._head)):
                for value in section.values("candidate"):
                    text = f"candidate:{value}"
                    found.setdefault((text, place), SectionCandidate(text, section.mid, position))
        return tuple(found.values())


def _codecs(section: Section) -> tuple[Codec, ...]:
    """The section's codecs that we take, in the order in which it prefers them."""
    mapped: dict[str, str | None] = {}
    for value in section.values("rtpmap"):
        match = _RTPMAP.fullmatch(value)
        if match is not None:
            payload_type, name, clock, channels = match.groups()
            fits = _CLOCKS.get(name.upper()) == clock and (name.upper() == "OPUS" or channels in (None, "1"))
            mapped.setdefault(payload_type, name.upper() if fits else None)
    names = ((fmt, mapped.get(fmt, _STATIC.get(fmt))) for fmt in dict.fromkeys(section.formats) if _can_be_rtp(fmt))
    return tuple(Codec(name, int(fmt)) for fmt, name in names if name is not None)


def _can_be_rtp(payload_type: str) -> bool:
    """RFC 5761, section 4: with RTCP on the same port, 64 to 95 would look like RTCP."""
    if not re.fullmatch(r"[0-9]{1,3}", payload_type) or str(int(payload_type)) != payload_type:
        return False
    return int(payload_type) < 64 or 96 <= int(payload_type) < 128  # noqa: PLR2004


def _sctp_port(section: Section) -> tuple[int | None, bool]:
    """The port, and whether it is said in the form of before RFC 8841; None where there is no data channel."""
    mapped = next(filter(None, map(_SCTPMAP.fullmatch, section.values("sctpmap"))), None)
    if mapped is not None:
        return (int(mapped[1]) if 0 < int(mapped[1]) <= _MAX_PORT else None), True
    if "webrtc-datachannel" not in section.formats:
        return None, False
    # RFC 8841, section 5.2: 0 says that there is none. Missing: all of the field has 5000.
    port = section.number("sctp-port", _MAX_PORT)
    return (_SCTP_PORT if port is None else port or None), False
