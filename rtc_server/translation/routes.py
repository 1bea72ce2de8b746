"""Which translations of text one after another lead from one language to another. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import permutations

Pair = tuple[str, str]


def via(pair: Pair, direct: Collection[Pair]) -> list[Pair] | None:
    """The steps from the first language of ``pair`` to the second: one where there is a direct translation, else two
    over a language between. None if there is no way. Each step loses something, so there are never three."""
    if pair in direct:
        return [pair]
    source, target = pair
    between = sorted(middle for first, middle in direct if first == source and (middle, target) in direct)
    # Of several, English: translations from and to it are the best made.
    return next(([(source, middle), (middle, target)] for middle in sorted(between, key=lambda tag: tag != "en")), None)


def reachable(direct: Collection[Pair]) -> Iterable[Pair]:
    """All pairs with a way between them."""
    languages = sorted({language for pair in direct for language in pair})
    return (pair for pair in permutations(languages, 2) if via(pair, direct))
