"""Gives a translation a voice, for models that write only: by espeak-ng, or by Pocket TTS where that is wanted.

Knows no model that translates.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rtc_server.audio import FloatArray
from rtc_server.translation import espeak
from rtc_server.translation.programs import ProgramError

logger = logging.getLogger(__name__)

Voice = Callable[[str, int], FloatArray | None]
"""Of one language: of a text, and the number of its speaker, the same of which sounds the same, sound as mono float32
at 24 kHz; None if nothing in it can be said. Raises ProgramError. Several threads may call it."""


def find(pocket_tts: Sequence[str] = ()) -> dict[str, Voice]:
    """The voices of this machine by language. ``pocket_tts``: the languages that Pocket TTS is to speak
    (:mod:`rtc_server.translation.pocket_options`). Raises ModelLoadError."""
    found: dict[str, Voice] = {language: partial(_by_espeak, name) for language, name in espeak.voices().items()}
    if pocket_tts:
        from rtc_server.translation import pocket  # noqa: PLC0415 - imports torch

        found |= {language: voice.speak for language, voice in pocket.load(pocket_tts).items()}
    return found


def speak(voices: Mapping[str, Voice], text: str, language: str, speaker: int) -> FloatArray | None:
    """``text`` as sound; None where there is no voice for the language, or nothing to say: a translation that cannot be
    spoken is still one that can be read."""
    voice = voices.get(language)
    if voice is None or _is_punctuation(text):
        return None
    try:
        return voice(text, speaker)
    except ProgramError as error:
        logger.warning("no voice: %s", error)
        return None


def _by_espeak(name: str, text: str, speaker: int) -> FloatArray | None:
    return espeak.speak(text, name, speaker)


def _is_punctuation(text: str) -> bool:
    """Whether there is nothing else, as in "...": a voice would read out the names of the marks."""
    return all(unicodedata.category(each)[0] in "PZC" for each in text)
