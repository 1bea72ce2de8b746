"""Gives a translation a voice by espeak-ng, for models that write only. Knows no model."""

from __future__ import annotations

import logging
import unicodedata

from rtc_server.audio import FloatArray
from rtc_server.translation import espeak
from rtc_server.translation.programs import ProgramError

logger = logging.getLogger(__name__)


def speak(text: str, voice: str | None, speaker: int) -> FloatArray | None:
    """``text`` in a ``voice`` of espeak-ng's, as mono float32 at 24 kHz; None where there is none, or nothing to say: a
    translation that cannot be spoken is still one that can be read. ``speaker``: the same number sounds the same."""
    if voice is None or _is_punctuation(text):
        return None
    try:
        return espeak.speak(text, voice, speaker)
    except ProgramError as error:
        logger.warning("no voice: %s", error)
        return None


def _is_punctuation(text: str) -> bool:
    """Whether there is nothing else, as in "...": a voice would read out the names of the marks."""
    return all(unicodedata.category(each)[0] in "PZC" for each in text)
