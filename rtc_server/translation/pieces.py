"""Makes of text what a model of sentences takes well: pieces, for its time grows faster than their length, and
sentences as they are written where they are only known as they were spoken. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MOST: Final = 240
"""Characters of a piece. A text that is no longer is one piece."""
_LONGEST_WORD: Final = 40
_ENDS: Final = (r"[.!?…;:]\s", r",\s", r"\s")
"""Where to cut, the best first."""
_ASKING: Final = {
    "en": "what who whom whose where when why how which can could do does did is are was were will would should may",
    "pt": "que quem onde quando como qual quais quanto quanta quantos quantas cadê será",
}
"""Words that questions begin with, by language."""


def plain(text: str) -> str:
    """Without control characters, line breaks and the like, which mean something to some programs."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def without(text: str, marks: Iterable[str]) -> str:
    """``text`` without ``marks``, in words with one space between them."""
    for mark in marks:
        text = text.replace(mark, " ")
    return " ".join(text.split())


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


def short_pieces(text: str) -> list[str]:
    """As :func:`pieces`; a word that is too long is cut as well."""
    return [piece[first : first + MOST] for piece in pieces(text) for first in range(0, len(piece), MOST)]


def is_language(piece: str) -> bool:
    """Whether there is something to translate: letters or digits, in words that may be words."""
    return any(map(str.isalnum, piece)) and all(len(word) <= _LONGEST_WORD for word in piece.split())


def as_written(text: str, language: str) -> str:
    """Of words that were written down as they were heard, as "what time is it", a sentence: with a capital, and with
    the mark of a question if it begins like one and has no mark at its end."""
    first = text.split(maxsplit=1)[0].lower() if text else ""
    asks = first in _ASKING.get(language, "").split() and text[-1].isalnum()
    return text[:1].upper() + text[1:] + ("?" if asks else "")


def _last(end: str, text: str) -> int:
    """Where the last ``end`` in ``text`` ends; 0 if there is none."""
    return max((found.end() for found in re.finditer(end, text)), default=0)


def _first_space(text: str) -> int:
    found = re.search(r"\s", text)
    return found.end() if found else len(text)
