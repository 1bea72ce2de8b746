"""Models that translate what is said while it is said: which published ones there are, between which languages, and
under which licence. Imports no torch: the media plane plans with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rtc_server.errors import ConfigError

HIBIKI: Final = "kyutai/hibiki-1b-pytorch-bf16"
_ATTRIBUTED: Final = "Hibiki by Kyutai (CC BY 4.0)."
_NON_COMMERCIAL: Final = "Hibiki-Zero: its weights are licensed for non-commercial use only (CC BY-NC-SA 4.0)."
_LANGUAGE: Final = re.compile("[a-z]{2,3}")


@dataclass(frozen=True, slots=True)
class Published:
    """``targets``: into which language it translates what is said in each of those that it hears."""

    targets: Mapping[str, str]
    notice: str


_PUBLISHED: Final = {
    "hibiki-1b-": Published({"fr": "en"}, _ATTRIBUTED),
    "hibiki-2b-": Published({"fr": "en"}, _ATTRIBUTED),
    "hibiki-zero-": Published({"fr": "en", "es": "en", "pt": "en", "de": "en"}, _NON_COMMERCIAL),
}
"""By how the last part of the name begins."""


def describe(model: str, pairs: Sequence[str] = ()) -> Published:
    """What the model with that name or directory translates, by ``pairs`` (``fr=en``) where they are given. Raises
    ConfigError where neither tells."""
    base = model.rstrip("/").rpartition("/")[2]
    known = next((each for start, each in _PUBLISHED.items() if base.startswith(start)), None)
    if pairs:
        return Published(dict(map(_pair, pairs)), known.notice if known else "")
    if known is None:
        raise ConfigError(
            f"--simultaneous {base}: between which languages it translates is not known.",
            hint="Say it: --simultaneous-pairs fr=en,es=en",
        )
    return known


def _pair(text: str) -> tuple[str, str]:
    source, _, target = text.partition("=")
    if not _LANGUAGE.fullmatch(source) or not _LANGUAGE.fullmatch(target) or source == target:
        raise ConfigError(f"--simultaneous-pairs {text!r} is not FROM=TO, two languages as fr=en.")
    return source, target
