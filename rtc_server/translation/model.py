"""The contract with a model that translates utterances.

Owns the contract and nothing else: no torch, no transport, no clock. Sound is mono float32 at 24 kHz everywhere. Where
a :class:`rtc_server.engine.model.StreamingModel` steps through 80 ms at a time, this one is given a whole utterance and
answers when it has computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from rtc_server.audio import FloatArray
from rtc_server.errors import ServerError

MAX_TEXT: Final = 2000
"""Characters of an utterance."""
MAX_AUDIO_S: Final = 30.0
"""Seconds of an utterance."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What one speaker said or typed, to be had in another language.

    ``source`` and ``target`` are languages as primary subtags of BCP 47 (``en``, ``pt``). Where both are the same,
    nothing is translated: only the voice is made. ``text``: what was said or typed, where that is known; at most
    :data:`MAX_TEXT` characters. ``pcm``: what was said, where the model hears for itself
    (:attr:`TranslatorInfo.hears`); at most :data:`MAX_AUDIO_S`. ``voice``: of the speaker: the same number sounds the
    same. ``speak``: sound is wanted as well.
    """

    source: str
    target: str
    text: str = ""
    pcm: FloatArray | None = None
    voice: int = 0
    speak: bool = True


@dataclass(frozen=True, slots=True)
class Translation:
    """``text`` may be empty: nothing was said. ``original``: what was said, in the source language, as far as that is
    known. ``pcm``: None if it was not wanted, or the language has no voice."""

    text: str
    original: str
    pcm: FloatArray | None


@dataclass(frozen=True, slots=True)
class TranslatorInfo:
    """What a loaded model is.

    ``pairs``: (source, target) that it translates. ``speaks``: languages with a voice. ``hears``: languages whose sound
    it takes itself. ``notice``: its licence and such, for people. ``batch``: utterances of one pair that one call takes
    at most. ``at_once``: calls of :meth:`UtteranceModel.translate` that may run at a time, each in a thread of its own.
    """

    name: str
    pairs: frozenset[tuple[str, str]]
    speaks: frozenset[str]
    hears: frozenset[str] = frozenset()
    notice: str = ""
    batch: int = 8
    at_once: int = 1


Outcome = Translation | ServerError
"""Of one utterance. An error is one of :data:`rtc_server.translation.messages.ERRORS`."""


class UtteranceModel(Protocol):
    """A model of whole utterances. Calls come from one thread at a time, but for :meth:`translate`: from as many as
    :attr:`TranslatorInfo.at_once` says."""

    @property
    def info(self) -> TranslatorInfo: ...

    def warm_up(self) -> None:
        """Pay now what the first translation would otherwise pay. Raises ModelLoadError."""

    def translate(self, batch: Sequence[Utterance]) -> list[Outcome]:
        """Translate utterances of one pair of languages, at most :attr:`TranslatorInfo.batch`.

        Returns one entry for each. What cannot be done is that entry's error: it costs no other. An exception costs the
        batch, whose utterances are then tried one by one.
        """

    def close(self) -> None:
        """Release what it holds. Idempotent."""
