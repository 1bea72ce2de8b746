"""Models that translate text, by the transformers package: OPUS-MT, from one language to one or a few, and MADLAD-400,
which knows some hundred of ours.

Owns how each kind is told into which language it is to translate, what of a text would be taken for such a mark, and
how long an answer may get. Imports torch: for the translator's process alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from rtc_server.errors import ModelLoadError
from rtc_server.translation.checkpoint_options import name_of
from rtc_server.translation.languages import LANGUAGES, tag_of
from rtc_server.translation.pieces import without
from rtc_server.translation.pretrained import from_pretrained
from rtc_server.translation.routes import Pair

logger = logging.getLogger(__name__)

_MADLAD: Final = "t5"
_OPUS: Final = "marian"
TEXT_KINDS: Final = frozenset({_MADLAD, _OPUS})
"""What ``model_type`` of a checkpoint's configuration says."""
_BATCH: Final = 8
_MARKS: Final = {_MADLAD: re.compile(r"<2(\w+)>"), _OPUS: re.compile(r">>(\w+)<<")}
"""How a text begins that is to become one of several languages."""
_ANSWER: Final = {"num_beams": 1, "do_sample": False, "no_repeat_ngram_size": 4}
"""Greedy: in a conversation time counts for more than the little that beams add. Odd texts make it repeat itself."""
_LONGER: Final = 2
"""An answer's tokens for one of the text's, at most, and :data:`_SOME` besides: some languages are written longer."""
_SOME: Final = 24
_HINT: Final = (
    "Give a directory or a hub repository of MADLAD-400, such as google/madlad400-3b-mt, or of OPUS-MT from one "
    "language, such as Helsinki-NLP/opus-mt-en-fr."
)


class TextModel:
    """A loaded checkpoint. ``begins``: what a text that is to become a language begins with, by its tag. Not for
    several threads: the tokenizers have states."""

    def __init__(self, model: Any, tokenizer: Any, pairs: Iterable[Pair], begins: dict[str, str]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._begins = begins
        self._marks = sorted({*begins.values(), *tokenizer.all_special_tokens} - {""}, key=len, reverse=True)
        self._one_of_several = _MARKS[model.config.model_type]
        self.pairs = frozenset(pairs)

    def translate(self, texts: Sequence[str], target: str) -> list[str]:
        """``texts``, none of which is empty or longer than a piece (:mod:`rtc_server.translation.pieces`), in the
        language ``target``; the model is not told from which."""
        begin = self._begins[target]
        told = [f"{begin} {self._plain(text)}".strip() for text in texts]
        done: list[str] = []
        for first in range(0, len(told), _BATCH):
            done += self._batch(told[first : first + _BATCH])
        return done

    def _batch(self, texts: list[str]) -> list[str]:
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True).to(self._model.device)
        most = _LONGER * inputs["attention_mask"].sum(dim=1) + _SOME
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_length=None, max_new_tokens=int(most.max()), **_ANSWER)
        # The first token is where the answer begins. No text gets a longer one for those beside it.
        answers = [row[: 1 + each] for row, each in zip(tokens, most.tolist(), strict=True)]
        written: list[str] = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [self._plain(text) for text in written]

    def _plain(self, text: str) -> str:
        """Without what the tokenizer takes for marks of its own, such as ``</s>`` and ``<2pt>``."""
        return " ".join(self._one_of_several.sub(" ", without(text, self._marks)).split())


def load_text_model(name: str, device: str) -> TextModel:
    """A model of one of :data:`TEXT_KINDS`, a hub repository or a directory. Raises ModelLoadError."""
    try:
        model = from_pretrained(AutoModelForSeq2SeqLM, name)
        tokenizer = from_pretrained(AutoTokenizer, name)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:  # as the package says what is missing
        logger.info("%s", error)
        raise ModelLoadError(f"{name_of(name)} cannot be loaded as a model that translates text.", _HINT) from error
    # The larger one's numbers leave float16's range.
    dtype = torch.bfloat16 if device.startswith("cuda") and model.config.model_type == _MADLAD else torch.float32
    languages = _by_mark(tokenizer, model.config.model_type)
    if model.config.model_type == _MADLAD:
        pairs = {(source, target) for source in languages for target in languages if source != target}
    else:
        source = tag_of(tokenizer.source_lang or "")
        alone = tag_of(tokenizer.target_lang or "")
        if not languages and alone:
            languages = {alone: ""}
        pairs = {(source, target) for target in languages if source and target != source}
    if not pairs or len(tokenizer) > model.config.vocab_size:
        raise ModelLoadError(f"Between which languages {name_of(name)} translates, its files do not say.", _HINT)
    return TextModel(model.to(device, dtype).eval(), tokenizer, pairs, languages)


def _by_mark(tokenizer: Any, kind: str) -> dict[str, str]:
    """The marks in the vocabulary by the tags of their languages: of several for one (``pt``, ``pt_BR``) its own."""
    found: dict[str, tuple[bool, str]] = {}
    for token in sorted(tokenizer.get_vocab(), key=lambda token: (len(token), token)):
        mark = _MARKS[kind].fullmatch(token)
        tag = tag_of(mark[1]) if mark else None
        if mark is None or tag is None:
            continue
        own = mark[1] in (tag, LANGUAGES[tag].iso)
        if tag not in found or (own and not found[tag][0]):
            found[tag] = own, token
    return {tag: token for tag, (_, token) in found.items()}
