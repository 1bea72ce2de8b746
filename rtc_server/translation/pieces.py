"""Cuts text into pieces that a model of sentences takes well: its time grows faster than the length. Pure."""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 240
"""Characters of a piece. A text that is no longer is one piece."""
_LONGEST_WORD: Final = 40
_ENDS: Final = (r"[.!?…;:]\s", r",\s", r"\s")
"""Where to cut, the best first."""


def pieces(text: str) -> list[str]:
    """``text`` in pieces of at most :data:`MOST` characters, cut behind sentences, else between words; a word that is
    too long for one is a piece by itself."""
    found = []
    rest = text.strip()
    while len(rest) > MOST:
        cut = next((cut for end in _ENDS if (cut := _last(end, rest[:MOST]))), 0) or _first_space(rest)
        found.append(rest[:cut].strip())
        rest = rest[cut:].strip()
    return [*found, rest] if rest else found


def is_language(piece: str) -> bool:
    """Whether there is something to translate: letters or digits, in words that may be words."""
    return any(map(str.isalnum, piece)) and all(len(word) <= _LONGEST_WORD for word in piece.split())


def _last(end: str, text: str) -> int:
    """Where the last ``end`` in ``text`` ends; 0 if there is none."""
    return max((found.end() for found in re.finditer(end, text)), default=0)


def _first_space(text: str) -> int:
    found = re.search(r"\s", text)
    return found.end() if found else len(text)
