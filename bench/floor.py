"""``python -m bench floor``: the least time that a step can take on a card, by its memory's bandwidth alone.

A step of a batch reads the weights once and the streaming state of every session, of which attention's caches are
nearly all: as a whole, in conversations as long as the context and longer. Computing is left out: in a batch of so
few rows it is the smaller part. Pure but for :func:`run`, which asks another process for the sizes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final

from bench.apart import apart
from bench.table import publish
from bench.weights import Sizes

HELP = "the least time of a step, by the bandwidth of a card's memory"

_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    bytes_per_s: float
    memory: int


CARDS: Final = (
    Card("H200", 4.8e12, 141 * 10**9),
    Card("H100 SXM", 3.35e12, 80 * 10**9),
    Card("L40S", 0.864e12, 48 * 10**9),
    Card("L4", 0.3e12, 24 * 10**9),
)
"""From NVIDIA's data sheets."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default="moshi-7b", help="moshi-7b, pico, a directory or a hub repository")
    parser.add_argument("--sessions", type=counts, default="1,64,128", help="a column for each")
    parser.add_argument("--context", type=int, help="frames that attention looks back over (default: the model's)")
    parser.add_argument("--dtype", default="bfloat16", help="of the language model")


def run(arguments: argparse.Namespace) -> None:
    from bench.architectures import shape  # noqa: PLC0415 - imports torch, which other benchmarks do not need

    sizes = apart(shape, arguments.arch, arguments.context, arguments.dtype)
    publish(
        f"Least time of a step: {arguments.arch}, {arguments.dtype}",
        ["", *(f"{sessions} session{'s' * (sessions > 1)}" for sessions in arguments.sessions)],
        [
            ["memory needed", *(size(sizes.needed(sessions)) for sessions in arguments.sessions)],
            *([card.name, *(_cell(sizes, card, sessions) for sessions in arguments.sessions)] for card in CARDS),
        ],
        [
            f"Weights {size(sizes.weights)}, a step reads {size(sizes.read)} of them; a session {size(sizes.session)}.",
            "What a step reads, divided by the bandwidth of the data sheet: nothing was measured.",
        ],
    )


def _cell(sizes: Sizes, card: Card, sessions: int) -> str:
    fits = sizes.needed(sessions) <= card.memory
    return f"{sizes.floor_s(sessions, card.bytes_per_s) * 1000:.1f} ms{'' if fits else ' (does not fit)'}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit, scale in (("GiB", _GIB), ("MiB", 2**20)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1024:.1f} KiB"


def counts(text: str) -> list[int]:
    """``1,8,16`` as numbers, each once, in the order of the text. Raises ArgumentTypeError for any other."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 1 on, such as 1,8,16")
    return list(dict.fromkeys(numbers))
