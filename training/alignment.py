"""When each word and phoneme of a text begins in a sound that a synthesizer made without saying so.

Owns the forced alignment, by pocketsphinx and the acoustic model that its package brings. Knows no voices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import soxr
from pocketsphinx import Decoder

from lab.speech import phonemes
from lab.speech.spoken import SpeechError, Spoken, trimmed
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, silence, to_int16

_RATE_HZ: Final = 16_000
_FRAME_S: Final = 0.01
_MARGIN_S: Final = 0.3
_HISS: Final = 3e-4
"""Of full scale, RMS: digital silence is nothing that the recogniser has learnt."""
_AROUND_S: Final = 0.03
"""Left before the first word and after the last, for an alignment is not exact."""
_SHORTEST_S: Final = 0.03
"""Of a word: where the alignment leaves one less, the text is not what was said."""


def aligned(pcm: FloatArray, text: str) -> Spoken:
    """``pcm``, mono at 24 kHz, with the times of the words and phonemes of ``text``. Raises :class:`SpeechError` if it
    is not what was said."""
    margin = silence(round(_MARGIN_S * MODEL_RATE_HZ))
    padded = np.concatenate((margin, trimmed(pcm).pcm, margin))
    hiss = np.random.default_rng(0).normal(0.0, _HISS, len(padded))
    narrow = to_int16(soxr.resample((padded + hiss).astype(np.float32), MODEL_RATE_HZ, _RATE_HZ)).tobytes()
    decoder = _decoder()
    decoder.set_align_text(text.lower())
    try:
        _hear(decoder, narrow)
    except RuntimeError as error:  # pocketsphinx's word for an alignment that did not reach the end
        _decoder.cache_clear()
        raise SpeechError(f"{text!r} is not what was said.") from error
    words = _words(decoder, text)
    phones = _phones(decoder, narrow) or _shared_out(decoder, words)
    first, last = max(0.0, words[0].begins_s - _AROUND_S), words[-1].ends_s + _AROUND_S
    return trimmed(
        padded[round(first * MODEL_RATE_HZ) : round(last * MODEL_RATE_HZ)],
        [(one.begins_s - first, one.text) for one in words],
        [(at - first, name) for at, name in phones if at >= first],
    )


@dataclass(frozen=True, slots=True)
class _Word:
    """``text``: as it is written; ``spoken``: as the dictionary lists it, of several pronunciations one."""

    text: str
    spoken: str
    begins_s: float
    ends_s: float


def _words(decoder: Decoder, text: str) -> list[_Word]:
    """Raises :class:`SpeechError` if they are not those of ``text``."""
    heard = [one for one in decoder.seg() or () if not one.word.startswith(("<", "["))]
    if len(heard) != len(text.split()):
        raise SpeechError(f"{text!r} is not what was said.")
    words = [
        _Word(word, one.word, one.start_frame * _FRAME_S, (one.end_frame + 1) * _FRAME_S)
        for word, one in zip(text.split(), heard, strict=True)
    ]
    if any(one.ends_s - one.begins_s < _SHORTEST_S for one in words):
        raise SpeechError(f"{text!r} is not what was said.")
    return words


def _phones(decoder: Decoder, pcm: bytes) -> list[tuple[float, str]]:
    """Within the words that were found; empty if pocketsphinx finds no way through them."""
    decoder.set_alignment()
    try:
        _hear(decoder, pcm)
    except RuntimeError:
        _decoder.cache_clear()
        return []
    return [(phone.start * _FRAME_S, _known(phone.name)) for word in decoder.get_alignment() for phone in word]


def _shared_out(decoder: Decoder, words: Sequence[_Word]) -> list[tuple[float, str]]:
    """The phonemes of each word, as long as each other."""
    phones = []
    for one in words:
        names = decoder.lookup_word(one.spoken).split()
        each_s = (one.ends_s - one.begins_s) / len(names)
        phones += [(one.begins_s + place * each_s, _known(name)) for place, name in enumerate(names)]
        phones.append((one.ends_s, phonemes.SILENCE))
    return phones


def _known(name: str) -> str:
    return name if name in phonemes.NUMBERS else phonemes.SILENCE


def _hear(decoder: Decoder, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()


@cache
def _decoder() -> Decoder:
    wide = {"beam": 1e-100, "wbeam": 1e-80, "pbeam": 1e-100}  # a voice that it has not learnt is not given up so soon
    return Decoder(lm=None, samprate=_RATE_HZ, cmn="batch", loglevel="FATAL", **wide)
