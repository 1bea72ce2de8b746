"""SeamlessM4T v2 by the transformers package: text or sound in, text and sound out, in one model.

Owns what the package leaves to its callers: what is too short, silent or empty is not given to it; text is made first,
and only what is not empty is spoken; a long text goes in pieces. Imports torch: for the translator's process alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import soxr
import torch
from transformers import AutoConfig, AutoProcessor, GenerationMixin, SeamlessM4Tv2Model

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.errors import ModelLoadError
from rtc_server.translation.checkpoint_options import NOTICE, SEAMLESS, CheckpointOptions
from rtc_server.translation.languages import LANGUAGES, tag_of
from rtc_server.translation.model import Outcome, Translation, TranslatorInfo, Utterance
from rtc_server.translation.pieces import short_pieces, without
from rtc_server.translation.pretrained import from_pretrained

logger = logging.getLogger(__name__)

_HINT: Final = (
    "Give a directory or a hub repository of a checkpoint that transformers has saved, such as "
    "facebook/seamless-m4t-v2-large."
)
_RATE_HZ: Final = 16_000
_LEAST_AUDIO_S: Final = 0.4
"""Of what is shorter no features can be made, or none that mean anything."""
_SILENCE_DBFS: Final = -60.0
"""What is quieter is no speech, and it would be made speech of."""
_BATCH: Final = 8
_OSCILLATES: Final = 5
"""The number of a speaker whose voice does so."""
_TEXT: Final = {"num_beams": 1, "do_sample": False, "no_repeat_ngram_size": 4}
"""Greedy: in a conversation time counts for more than the little that beams add. Noise makes it repeat itself."""


class _KeptGeneration(GenerationMixin):
    """``generate`` of the model makes text, and then sound of that text. Here text that was made before is taken."""

    kept: Any = None

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return super().generate(*args, **kwargs) if self.kept is None else self.kept


class _Model(SeamlessM4Tv2Model, _KeptGeneration):  # type: ignore[no-untyped-call]
    """With :class:`_KeptGeneration` behind the model's own ``generate``; and its speech encoder hears a batch once,
    where by itself it would for each use of it."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._heard: list[tuple[Any, Any]] = []
        encode = self.speech_encoder.forward

        def encode_once(input_features: Any, *args: Any, **kwargs: Any) -> Any:
            heard = self._encoded(input_features)
            if heard is None:
                heard = encode(input_features, *args, **kwargs)
                self._heard.append((input_features, heard))
            return heard

        self.speech_encoder.forward = encode_once

    def rows(self, inputs: dict[str, Any], rows: Any) -> dict[str, Any]:
        """These rows of ``inputs``; sound among them that has been heard need not be heard again."""
        some = {name: value[rows] for name, value in inputs.items()}
        heard = self._encoded(inputs.get("input_features"))
        if heard is not None:
            self._heard.append((some["input_features"], _Encoded(heard.last_hidden_state[rows])))
        return some

    def forget(self) -> None:
        """What it has heard and made."""
        self.kept = None
        self._heard.clear()

    def _encoded(self, input_features: Any) -> Any:
        return next((encoded for features, encoded in self._heard if features is input_features), None)


@dataclass(frozen=True, slots=True)
class _Encoded:
    last_hidden_state: Any


@dataclass(frozen=True, slots=True)
class _Made:
    """Text of a batch, as the model's ``generate`` gives it: tokens of shape [rows, longest], and what the encoder made
    of the input, of which the last is asked for."""

    sequences: Any
    encoder_hidden_states: tuple[Any, ...]

    def of(self, rows: Any) -> _Made:
        return _Made(self.sequences[rows], (self.encoder_hidden_states[-1][rows],))


@dataclass(slots=True)
class _Row:
    """One piece of a text, or one utterance that was heard. ``of``: which utterance it belongs to. ``text``: what was
    said, as far as that is known."""

    of: int
    text: str = ""
    pcm: FloatArray | None = None
    translation: str = ""
    voice: FloatArray | None = None


class Seamless:
    """Of a loaded ``model`` and its ``processor``. Not for several threads: the model has a state while it computes."""

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor
        made = model.generation_config
        self._writes = _by_tag(made.text_decoder_lang_to_code_id)
        speaks = set(made.t2u_lang_code_to_id) & set(made.vocoder_lang_code_to_id)
        self._speaks = {tag: iso for tag, iso in self._writes.items() if iso in speaks}
        speakers = range(model.config.vocoder_num_spkrs)
        self._marks = sorted({*processor.tokenizer.all_special_tokens, *processor.tokenizer.get_added_vocab()})
        self._speakers = [speaker for speaker in speakers if speaker != _OSCILLATES]
        languages = frozenset(self._writes)
        self._info = TranslatorInfo(
            name,
            pairs=frozenset((source, target) for source in languages for target in languages if source != target),
            speaks=frozenset(self._speaks),
            hears=languages,
            notice=NOTICE,
            batch=_BATCH,
        )

    @property
    def info(self) -> TranslatorInfo:
        return self._info

    def warm_up(self) -> None:
        source, target = sorted(self._writes)[:2]
        self.translate([Utterance(source, target, "a")])
        self.translate(
            [Utterance(source, target, pcm=np.float32(0.1) * np.sin(np.arange(MODEL_RATE_HZ, dtype=np.float32)))]
        )

    def translate(self, batch: Sequence[Utterance]) -> list[Outcome]:
        source, target = batch[0].source, batch[0].target
        rows = [row for number, utterance in enumerate(batch) for row in self._rows(number, utterance)]
        heard = [row for row in rows if row.pcm is not None]
        read = [row for row in rows if row.pcm is None]
        with torch.inference_mode():
            for group in (heard, read):
                for first in range(0, len(group), _BATCH):
                    self._translate_rows(group[first : first + _BATCH], batch, source, target)
        return [_joined(utterance, [row for row in rows if row.of == number]) for number, utterance in enumerate(batch)]

    def close(self) -> None:
        self._model = None

    def _rows(self, number: int, utterance: Utterance) -> Iterator[_Row]:
        """What there is to translate of an utterance: what was heard if there is speech in it, else its text, piece by
        piece, for of a long text the model drops sentences."""
        text = self._plain(utterance.text)
        known = text and utterance.source == utterance.target
        if utterance.pcm is not None and not known and _may_be_speech(utterance.pcm):
            yield _Row(number, text, utterance.pcm)
            return
        for piece in short_pieces(text):
            yield _Row(number, piece)

    def _plain(self, text: str) -> str:
        """Without what the tokenizer takes for marks of its own, such as ``</s>``."""
        return without(text, self._marks)

    def _translate_rows(self, rows: list[_Row], batch: Sequence[Utterance], source: str, target: str) -> None:
        """Fill in what the rows lack; all of them are heard, or all are read."""
        try:
            inputs = self._inputs(rows, source)
            if rows[0].pcm is None and source == target:
                made = self._as_it_is(inputs)
                texts = [row.text for row in rows]
            else:
                made = self._generate(inputs, target)
                texts = self._texts(made)
            for row, text in zip(rows, texts, strict=True):
                row.translation = text
            self._write_down(inputs, rows, source, target)
            self._speak(inputs, made, [(row, batch[row.of]) for row in rows], target)
        finally:
            self._model.forget()

    def _inputs(self, rows: Sequence[_Row], source: str) -> dict[str, Any]:
        if rows[0].pcm is not None:
            heard = [soxr.resample(row.pcm, MODEL_RATE_HZ, _RATE_HZ) for row in rows]
            inputs = self._processor(audio=heard, sampling_rate=_RATE_HZ, return_tensors="pt", padding=True)
            inputs["input_features"] = inputs["input_features"].to(self._model.dtype)
        else:
            texts = [row.text for row in rows]
            inputs = self._processor(text=texts, src_lang=self._writes[source], return_tensors="pt", padding=True)
        return {name: value.to(self._model.device) for name, value in inputs.items()}

    def _generate(self, inputs: dict[str, Any], target: str) -> _Made:
        output = self._model.generate(**inputs, tgt_lang=self._writes[target], generate_speech=False, **_TEXT)
        return _Made(output.sequences, tuple(output.encoder_hidden_states or (None,)))

    def _as_it_is(self, inputs: dict[str, Any]) -> _Made:
        """The text that goes in as the text that came out, for its voice alone."""
        encoded = self._model.text_encoder(**inputs).last_hidden_state
        tokens = inputs["input_ids"]
        start = torch.full_like(tokens[:, :1], self._model.generation_config.decoder_start_token_id)
        return _Made(torch.cat([start, tokens], dim=1), (encoded,))

    def _texts(self, made: _Made) -> list[str]:
        texts: list[str] = self._processor.batch_decode(made.sequences, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def _write_down(self, inputs: dict[str, Any], rows: Sequence[_Row], source: str, target: str) -> None:
        """What was said, of rows that were heard and whose words are not known."""
        if rows[0].pcm is None or all(row.text for row in rows):
            return
        originals = [row.translation for row in rows]
        if source != target:
            originals = self._texts(self._generate(inputs, source))
        for row, original in zip(rows, originals, strict=True):
            row.text = row.text or original

    def _speak(self, inputs: dict[str, Any], made: _Made, rows: Sequence[tuple[_Row, Utterance]], target: str) -> None:
        """With one call for each speaker. An empty translation would break the model."""
        by_speaker: dict[int, list[int]] = {}
        for number, (row, utterance) in enumerate(rows):
            if row.translation and utterance.speak and target in self._speaks:
                speaker = self._speakers[utterance.voice % len(self._speakers)]
                by_speaker.setdefault(speaker, []).append(number)
        for speaker, numbers in by_speaker.items():
            chosen = torch.tensor(numbers, device=self._model.device)
            some = inputs if len(numbers) == len(rows) else self._model.rows(inputs, chosen)
            self._model.kept = made.of(chosen)
            waves, lengths = self._model.generate(**some, tgt_lang=self._writes[target], speaker_id=speaker)
            self._model.kept = None
            for number, wave, length in zip(numbers, waves.float().cpu(), lengths.reshape(-1).tolist(), strict=True):
                rows[number][0].voice = _sound(wave[: int(length)].numpy())


def _by_tag(codes: dict[str, int]) -> dict[str, str]:
    """The model's codes by the tags of their languages: of several for one (``cmn``, ``cmn_Hant``) its own."""
    tags = {code: tag_of(code) for code in codes}
    return {tag: code for code, tag in tags.items() if tag is not None and LANGUAGES[tag].iso == code}


def _may_be_speech(pcm: FloatArray) -> bool:
    return len(pcm) >= _LEAST_AUDIO_S * MODEL_RATE_HZ and audio.level_dbfs(pcm) > _SILENCE_DBFS


def _joined(utterance: Utterance, rows: Sequence[_Row]) -> Translation:
    voices = [row.voice for row in rows if row.voice is not None]
    original = utterance.text.strip() or " ".join(row.text for row in rows)
    text = " ".join(row.translation for row in rows if row.translation)
    return Translation(text, original, np.concatenate(voices) if voices else None)


def _sound(wave: FloatArray) -> FloatArray | None:
    """At 24 kHz and within bounds; None for nothing."""
    if wave.size == 0:
        return None
    return audio.sanitise(np.asarray(soxr.resample(audio.sanitise(wave), _RATE_HZ, MODEL_RATE_HZ), dtype=np.float32))


def load(options: CheckpointOptions) -> Seamless:
    """Raises ModelLoadError."""
    dtype = torch.float16 if options.device.startswith("cuda") else torch.float32
    try:
        kind = from_pretrained(AutoConfig, options.model).model_type
        if kind != SEAMLESS:
            raise ModelLoadError(f"{options.name} is a model of the kind {kind}, not SeamlessM4T v2.", _HINT)
        model: Any = from_pretrained(_Model, options.model, dtype=dtype)
        processor = from_pretrained(AutoProcessor, options.model)
        if not _fits(model, processor):
            raise ModelLoadError(f"{options.name} lacks its tokenizer, or has that of another model.", _HINT)
        return Seamless(options.name, model.to(options.device).eval(), processor)
    except (OSError, ValueError, KeyError) as error:  # what the package raises for files that are missing or others
        logger.info("%s", error)
        raise ModelLoadError(f"{options.name} cannot be loaded as SeamlessM4T v2.", _HINT) from error


def _fits(model: Any, processor: Any) -> bool:
    """Whether the tokenizer knows the languages by the model's numbers: without its file, the package makes an empty
    one."""
    codes: dict[str, int] = getattr(model.generation_config, "text_decoder_lang_to_code_id", None) or {}
    known = {code: processor.tokenizer.convert_tokens_to_ids(f"__{code}__") for code in codes}
    return bool(codes) and known == codes
