"""Candidates that follow an offer: SDP fragments (RFC 8840) and their JSON form. Text in, values out; no IO."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from rtc_server.errors import BadCandidate

SDPFRAG_TYPE: Final = "application/trickle-ice-sdpfrag"
_MAX_LINES: Final = 512
_MAX_MID: Final = 64


@dataclass(frozen=True, slots=True)
class SectionCandidate:
    """A candidate line (``candidate:...``) of the section ``mid``; without one, of the first. ``index``: where that
    section stands, for offers whose sections have no mid."""

    text: str
    mid: str | None
    index: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Fragment:
    """``ufrag`` and ``password`` say which ICE generation it belongs to; None where it does not say."""

    candidates: tuple[SectionCandidate, ...] = ()
    ufrag: str | None = None
    password: str | None = None


class _JsonCandidate(msgspec.Struct, frozen=True):
    """``RTCIceCandidateInit``. An empty ``candidate`` is the end of a generation."""

    candidate: str
    sdpMid: str | None = None  # noqa: N815 - the field's name in the standard
    sdpMLineIndex: int | None = None  # noqa: N815
    usernameFragment: str | None = None  # noqa: N815


class _JsonFragment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    candidates: list[_JsonCandidate] = []
    complete: bool = False


_decoder: Final = msgspec.json.Decoder(_JsonFragment)
_PSEUDO_MEDIA: Final = re.compile(r"m=[a-z]+ \d+ [A-Za-z/]+( \S+)*")


def parse_json(raw: bytes) -> Fragment:
    """Raises BadCandidate."""
    try:
        parsed = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadCandidate from None
    fragments = {each.usernameFragment for each in parsed.candidates if each.usernameFragment}
    if len(fragments) > 1:
        raise BadCandidate("The candidates belong to different generations.")
    candidates = tuple(
        SectionCandidate(each.candidate, each.sdpMid or None, each.sdpMLineIndex)
        for each in parsed.candidates
        if each.candidate
    )
    return Fragment(candidates, ufrag=next(iter(fragments), None))


def parse_fragment(raw: bytes) -> Fragment:
    """An SDP fragment (RFC 8840, section 9). Raises BadCandidate for anything else."""
    try:
        lines = [line for line in re.split(r"\r?\n", raw.decode()) if line]
    except UnicodeDecodeError:
        raise BadCandidate from None
    if not lines or len(lines) > _MAX_LINES:
        raise BadCandidate
    candidates: list[SectionCandidate] = []
    known: dict[str, str] = {}
    mid: str | None = None
    for line in lines:
        if line.startswith("m="):
            if not _PSEUDO_MEDIA.fullmatch(line):
                raise BadCandidate
            mid = None
            continue
        name, _, value = line.removeprefix("a=").partition(":")
        if not line.startswith("a="):
            raise BadCandidate
        if name == "mid":
            mid = value[:_MAX_MID]
        elif name == "candidate":
            candidates.append(SectionCandidate(f"candidate:{value}", mid))
        elif name in ("ice-ufrag", "ice-pwd") and known.setdefault(name, value) != value:
            raise BadCandidate("The fragment holds more than one generation.")
    return Fragment(tuple(candidates), known.get("ice-ufrag"), known.get("ice-pwd"))
