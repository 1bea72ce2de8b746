"""ICE and DTLS parameters of an offer: where the standards allow them, and which ones count for a section.

Text in, values out. They stand in the section; in the session, for all sections (RFC 8839, section 5.4; RFC 8122,
section 5; RFC 8842, section 5.1); or, for sections that are bundled, in the one that gives the bundle its transport
(RFC 9143, section 7.2).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rtc_server.errors import BadSdp
from rtc_server.protocols.sdp import Lines

_ICE_WORD: Final = re.compile(r"[!-~]{1,256}")
"""RFC 8839, section 5.4 asks for at least 4 and 22 characters of a smaller alphabet; fewer weaken the client alone."""
_HASHES: Final = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
"""Hash functions of fingerprints that are taken, and the lengths of their values in bytes."""


class Setup(enum.StrEnum):
    """Who may begin the DTLS handshake, from the side that says so (RFC 4145, section 4)."""

    ACTIVE = "active"
    PASSIVE = "passive"
    ACTPASS = "actpass"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """``algorithm``: in lower case; ``value``: bytes in hexadecimal, with colons, in upper case."""

    algorithm: str
    value: str


@dataclass(frozen=True, slots=True)
class Transport:
    """How to reach the peer and how to know it. ``lite``: it only answers ICE checks (RFC 8445, section 2.5)."""

    ufrag: str
    password: str
    fingerprints: tuple[Fingerprint, ...]
    setup: Setup
    lite: bool = False


def read_transport(places: Sequence[Lines], session: Lines) -> Transport:
    """The parameters from the first of the ``places`` that has them, itself or from the ``session``. Raises BadSdp with
    a sentence that names what is missing, or what cannot be used."""
    ice = next((pair for place in places for pair in ice_of(place, session)), None)
    if ice is None:
        raise BadSdp("The offer has no a=ice-ufrag and a=ice-pwd that can be used.")
    fingerprints: tuple[Fingerprint, ...] = next(filter(None, map(_fingerprints, places)), ())
    if not fingerprints:
        raise BadSdp(_what_fingerprint(places))
    return Transport(*ice, fingerprints, _setup(places), session.has("ice-lite"))


def ice_of(section: Lines, session: Lines) -> Iterator[tuple[str, str]]:
    """The username fragment and the password that hold for a section, each its own or the session's: one pair, or
    none."""
    ufrag, password = (
        next(
            (value for lines in (section, session) for value in lines.values(name) if _ICE_WORD.fullmatch(value)), None
        )
        for name in ("ice-ufrag", "ice-pwd")
    )
    if ufrag is not None and password is not None:
        yield ufrag, password


def _fingerprints(lines: Lines) -> tuple[Fingerprint, ...]:
    """Those that can be used; others are passed over (RFC 8122, section 5)."""
    found = (_fingerprint(value) for value in lines.values("fingerprint"))
    return tuple(dict.fromkeys(each for each in found if each is not None))


def _fingerprint(value: str) -> Fingerprint | None:
    algorithm, digest = [*value.upper().split(None, 1), "", ""][:2]
    size = _HASHES.get(algorithm.lower())
    if size is None or not re.fullmatch(r"[0-9A-F]{2}(:[0-9A-F]{2})*", digest) or len(digest) != 3 * size - 1:
        return None
    return Fingerprint(algorithm.lower(), digest)


def _what_fingerprint(places: Iterable[Lines]) -> str:
    offered = {value.partition(" ")[0].lower() for place in places for value in place.values("fingerprint")}
    known = "sha-256, sha-384 or sha-512"
    if not offered:
        return f"The offer has no a=fingerprint: one of {known} is needed."
    if offered.isdisjoint(_HASHES):
        return f"The offer's a=fingerprint uses no hash function that is taken: {known}."
    return f"The offer's a=fingerprint is not one of {known}."


def _setup(places: Sequence[Lines]) -> Setup:
    values = [value.lower() for place in places for value in place.values("setup")]
    known = next((value for value in values if value in {*Setup, "holdconn"}), None)
    if known == "holdconn":
        raise BadSdp("The offer says a=setup:holdconn: it wants no connection now.")
    # Missing, it is actpass, if it was forgotten, or active, by RFC 4145. That the client begins is right for both.
    return Setup.ACTIVE if known is None else Setup(known)
