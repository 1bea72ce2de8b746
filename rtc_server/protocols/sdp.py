"""Parses session descriptions as text: lines, sections, attributes (RFC 8866). Their meaning is said elsewhere.

Text in, values out; no stack, no IO. Lines that no one asks for by name are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rtc_server.errors import BadSdp

MAX_SECTIONS: Final = 32
MAX_LINES: Final = 4000

# RFC 8866, section 5: "parsers SHOULD be tolerant and also accept records terminated with a single newline".
_END_OF_LINE: Final = re.compile(r"\r\n|\n|\r")
_M_LINE: Final = re.compile(r"m=(?P<kind>\S+)\s+(?P<port>\d{1,5})(?:/\d+)?\s+(?P<profile>\S+)\s+(?P<formats>\S.*)")
_TOKEN: Final = re.compile(r"[!-~]{1,64}")


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of the session, or those under an m-line."""

    lines: tuple[str, ...]

    def values(self, name: str) -> Iterator[str]:
        """Values of ``a=name:``, in order; the empty string for a bare ``a=name``."""
        bare, prefix = f"a={name}", f"a={name}:"
        for line in self.lines:
            if line.startswith(prefix):
                yield line[len(prefix) :].strip()
            elif line == bare:
                yield ""

    def has(self, name: str) -> bool:
        return any(True for _ in self.values(name))

    def token(self, name: str) -> str | None:
        """The first value of ``a=name:`` that is a word of at most 64 printable characters of ASCII."""
        return next((value for value in self.values(name) if _TOKEN.fullmatch(value)), None)

    def number(self, name: str, most: int) -> int | None:
        """The first value of ``a=name:`` that is a number of at most ``most``."""
        values = (int(value) for value in self.values(name) if value.isascii() and value.isdigit() and len(value) < 16)  # noqa: PLR2004
        return next((value for value in values if value <= most), None)


@dataclass(frozen=True, slots=True)
class Section(Lines):
    """An m-line and the lines under it. ``mid``: None where there is none."""

    kind: str
    port: int
    profile: str
    formats: tuple[str, ...]

    @property
    def mid(self) -> str | None:
        return self.token("mid")


@dataclass(frozen=True, slots=True)
class Description:
    """``head``: the lines of the session."""

    head: Lines
    sections: tuple[Section, ...]

    def group(self, semantics: str) -> Iterator[tuple[str, ...]]:
        """The members of each ``a=group:`` of these semantics, each once."""
        for value in self.head.values("group"):
            name, *mids = value.split() or [""]
            if name == semantics:
                yield tuple(dict.fromkeys(mids))


def parse(sdp: str) -> Description:
    """Raises BadSdp where this is no session description, or too much of one."""
    lines = [line for line in (each.rstrip() for each in _END_OF_LINE.split(sdp)) if line]
    if not lines or lines[0] != "v=0":
        raise BadSdp
    if len(lines) > MAX_LINES:
        raise BadSdp(f"The offer has more than {MAX_LINES} lines.")
    if any(line[1:2] != "=" for line in lines):  # RFC 8866, section 5: <type>=<value>
        raise BadSdp
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")]
    if len(starts) > MAX_SECTIONS:
        raise BadSdp(f"The offer has too many sections: at most {MAX_SECTIONS} are taken.")
    sections = tuple(_section(lines[start:end]) for start, end in pairwise([*starts, len(lines)]))
    return Description(Lines(tuple(lines[: starts[0]] if starts else lines)), sections)


def _section(lines: list[str]) -> Section:
    match = _M_LINE.fullmatch(lines[0])
    if match is None or int(match["port"]) > 65535:  # noqa: PLR2004 - 16 bits
        raise BadSdp("One of the offer's m-lines cannot be parsed.")
    formats = tuple(match["formats"].split())
    return Section(tuple(lines[1:]), match["kind"], int(match["port"]), match["profile"], formats)
