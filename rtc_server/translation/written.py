"""Translates utterances by models of text, one or several, and gives them a voice of this machine's.

Owns how they are put together: utterances of a pair of languages are a batch, piece by piece; where no model translates
a pair, two do, over a language between.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from rtc_server.audio import FloatArray
from rtc_server.errors import UnsupportedPair
from rtc_server.translation import voices
from rtc_server.translation.model import MAX_TEXT, Outcome, Translation, TranslatorInfo, Utterance
from rtc_server.translation.pieces import as_written, is_language, plain, short_pieces
from rtc_server.translation.routes import Pair, reachable, via
from rtc_server.translation.voices import Voice

_BATCH: Final = 8
_VOICES: Final = 4
"""Programs at a time."""


class TextTranslator(Protocol):
    """What translates text between some languages."""

    @property
    def pairs(self) -> frozenset[Pair]: ...

    def translate(self, texts: Sequence[str], target: str) -> list[str]: ...


class Written:
    """By ``models``: of several that translate the same pair, the first. ``speaking``: voices by language."""

    def __init__(self, name: str, models: Sequence[TextTranslator], speaking: dict[str, Voice], notice: str) -> None:
        self._models = {pair: model for model in reversed(models) for pair in model.pairs}
        self._voices = speaking
        self._executor = ThreadPoolExecutor(_VOICES, "voice")
        self._info = TranslatorInfo(
            name, frozenset(reachable(self._models)), frozenset(self._voices), notice=notice, batch=_BATCH
        )

    @property
    def info(self) -> TranslatorInfo:
        return self._info

    def warm_up(self) -> None:
        pair_of_each = {id(model): (pair, model) for pair, model in sorted(self._models.items(), reverse=True)}
        for (_, target), model in pair_of_each.values():
            model.translate(["Hello."], target)

    def translate(self, batch: Sequence[Utterance]) -> list[Outcome]:
        source, target = batch[0].source, batch[0].target
        texts = [plain(utterance.text) for utterance in batch]
        if source != target:
            steps = via((source, target), self._models)
            if steps is None:
                return [UnsupportedPair() for _ in batch]
            for step in steps:
                texts = self._step(texts, step)
        spoken = self._executor.map(self._voice, texts, batch)
        return [Translation(text, one.text, pcm) for text, one, pcm in zip(texts, batch, spoken, strict=True)]

    def close(self) -> None:
        self._executor.shutdown()

    def _step(self, texts: Sequence[str], pair: Pair) -> list[str]:
        """What is no language stays as it is."""
        split = [short_pieces(text) for text in texts]
        wanted = [as_written(piece, pair[0]) for one in split for piece in one if is_language(piece)]
        made = iter(self._models[pair].translate(wanted, pair[1]) if wanted else ())
        joined = [" ".join(next(made) if is_language(piece) else piece for piece in one) for one in split]
        return [text[: 2 * MAX_TEXT].strip() for text in joined]

    def _voice(self, text: str, utterance: Utterance) -> FloatArray | None:
        if not utterance.speak:
            return None
        return voices.speak(self._voices, text, utterance.target, utterance.voice)
