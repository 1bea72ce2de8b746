"""Speech with its timing, from the espeak-ng library: samples, and when each phoneme and word begins.

Owns the calls into libespeak-ng, which keeps one voice per process: use processes, not threads. Knows no
phrases and no training.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from typing import Any, Final

import numpy as np
import soxr

from lab.speech import phonemes as names
from lab.speech.spoken import SpeechError, Spoken, Voice, trimmed
from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray

_RETRIEVAL: Final = 2
_PHONEME_EVENTS: Final = 1
_CHARACTERS_UTF8: Final = 1
_WORD, _PHONEME = 1, 7
_RATE, _PITCH, _RANGE = 1, 3, 4


class EspeakError(SpeechError):
    """espeak-ng is missing, or does not know the voice."""


class _Identity(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Library:
    """libespeak-ng, opened once in a process."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._library: Any = ctypes.CDLL(name)
        except OSError as error:
            raise EspeakError("espeak-ng is not installed: its library libespeak-ng is missing.") from error
        self.rate_hz = int(self._library.espeak_Initialize(_RETRIEVAL, 0, None, _PHONEME_EVENTS))
        if self.rate_hz <= 0:
            raise EspeakError("espeak-ng cannot find its data.")
        self._callback = _Callback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""
        self._chunks: list[np.ndarray[Any, Any]] = []
        self._words: list[tuple[float, int]] = []
        self._phonemes: list[tuple[float, str]] = []

    def synthesize(
        self, text: str, voice: Voice
    ) -> tuple[FloatArray, list[tuple[float, str]], list[tuple[float, str]]]:
        """Samples at the library's own rate, words and phonemes in seconds."""
        if voice.name != self._voice:
            if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
                raise EspeakError(f"espeak-ng has no voice {voice.name}.")
            self._voice = voice.name
        for parameter, value in ((_RATE, voice.words_per_minute), (_PITCH, voice.pitch), (_RANGE, voice.pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._chunks, self._words, self._phonemes = [], [], []
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _CHARACTERS_UTF8, None, None)
        pcm = np.concatenate(self._chunks) if self._chunks else np.zeros(0, dtype=np.int16)
        return audio.from_int16(pcm), _words(text, self._words, len(pcm) / self.rate_hz), self._phonemes

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        index = 0
        while events[index].type != 0:
            event = events[index]
            at = event.audio_position / 1000.0
            if event.type == _WORD and event.length:  # the pause after a clause is reported as one without letters
                self._words.append((at, event.text_position - 1))
            elif event.type == _PHONEME:
                self._phonemes.append((at, event.id.string.decode("utf-8", "replace")))
            index += 1
        return 0


def _words(text: str, begun: list[tuple[float, int]], duration_s: float) -> list[tuple[float, str]]:
    """Every word of ``text`` and when it begins. ``begun``: when, and at which letter, a word begins that is spoken by
    itself: "in the" is spoken as one, and its time is shared out by letters."""
    words = []
    begun = begun or [(0.0, 0)]  # of a short word alone, none is reported
    nexts = [*begun[1:], (duration_s, len(text))]
    for (at, first), (until, last) in zip(begun, nexts, strict=True):
        spoken_as_one = [word.strip(",.?!") for word in text[first:last].split()]
        letters, before = sum(map(len, spoken_as_one)), 0
        for word in spoken_as_one:
            words.append((at + (until - at) * before / letters, word))
            before += len(word)
    return words


@cache
def _library() -> _Library:
    return _Library()


def speak(text: str, voice: Voice) -> Spoken:
    """``text`` in ``voice``, peak at half scale. Raises :class:`EspeakError`."""
    library = _library()
    pcm, words, phonemes = library.synthesize(text, voice)
    pcm = np.asarray(soxr.resample(pcm, library.rate_hz, MODEL_RATE_HZ), dtype=np.float32)
    try:
        return trimmed(pcm, words, [(at, names.of_espeak(phoneme)) for at, phoneme in phonemes])
    except SpeechError as error:
        raise EspeakError(f"espeak-ng says nothing for {text!r}.") from error
