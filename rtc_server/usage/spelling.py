"""Finds the known name that a misspelt one was meant to be. Pure; knows no settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

_LEAST: Final = 0.5
"""Share of a name that has to be right for it to be guessed."""
_SHORTEST_BEGINNING: Final = 3
"""Characters: a name that begins as another does may be meant for it, as ``auth`` and ``authentication``."""
_LONGEST: Final = 100
"""Characters of a name that are looked at: the time taken is quadratic in it, and the name may be a stranger's."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is most like ``name``, whatever its case and its separators; None if none is."""
    scored = [(_likeness(_plain(name), _plain(other)), other) for other in known]
    likeness, found = max(scored, default=(0.0, ""))
    return found if likeness >= _LEAST else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest name and a space before it, to be put behind another; empty where none is near."""
    found = nearest(name, known)
    return "" if found is None else f" Did you mean {found}?"


def edits(one: str, other: str) -> int:
    """How many characters are to be added, left out, replaced, or swapped with their neighbour to make ``other`` of
    ``one`` (optimal string alignment distance)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, mine in enumerate(one, 1):
        now = [row]
        for column, theirs in enumerate(other, 1):
            best = min(last[column] + 1, now[column - 1] + 1, last[column - 1] + (mine != theirs))
            if row > 1 and column > 1 and (mine, one[row - 2]) == (other[column - 2], theirs):
                best = min(best, before[column - 2] + 1)
            now.append(best)
        before, last = last, now
    return last[-1]


def _plain(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name[:_LONGEST].lower()).split())


def _likeness(one: str, other: str) -> float:
    """1 for equal names, 0 for those that have nothing in common."""
    if not one or not other:
        return 0.0
    short, long = sorted((len(one), len(other)))
    begins = short >= _SHORTEST_BEGINNING and (one.startswith(other) or other.startswith(one))
    return max(
        _LEAST + 0.4 * short / long if begins else 0.0,
        1 - edits(one, other) / long,
        difflib.SequenceMatcher(None, one, other).ratio() - 0.1,
    )
