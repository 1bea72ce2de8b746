"""Session descriptions in which the network between two peers is another than they think. Text in, text out."""

from __future__ import annotations

from typing import Final

_HIGHEST_PRIORITY: Final = 2130706431
"""Of a host candidate: RFC 8445, section 5.1.2.1."""
_CANDIDATE: Final = "a=candidate:"


def candidates(sdp: str) -> list[tuple[str, int]]:
    """Address and port of each UDP candidate, in order, once each. RFC 8839, section 5.1."""
    found: list[tuple[str, int]] = []
    for line in sdp.splitlines():
        if not line.startswith(_CANDIDATE):
            continue
        fields = line[len(_CANDIDATE) :].split()
        if len(fields) >= 8 and fields[2].lower() == "udp" and (fields[4], int(fields[5])) not in found:
            found.append((fields[4], int(fields[5])))
    return found


def with_only_candidate(sdp: str, host: str, port: int) -> str:
    """The description with one host candidate in place of all that a section has.

    A section without candidates stays without; end-of-candidates stays where it is.
    """
    lines: list[str] = []
    replaced = False
    for line in sdp.splitlines():
        if line.startswith("m="):
            replaced = False
        if not line.startswith(_CANDIDATE):
            lines.append(line)
        elif not replaced:
            lines.append(f"{_CANDIDATE}1 1 udp {_HIGHEST_PRIORITY} {host} {port} typ host")
            replaced = True
    return "\r\n".join(lines) + "\r\n"


class Rewriter:
    """Changes session descriptions on their way; this one leaves them as they are. A relay is another."""

    def rewrite_offer(self, sdp: str) -> str:
        return sdp

    def rewrite(self, sdp: str) -> str:
        return sdp
