"""Voices of espeak-ng, a program of the system's: text in, sound at 24 kHz out."""

from __future__ import annotations

import io
import shutil
import wave
from typing import Final

import numpy as np
import soxr

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.translation.languages import tag_of
from rtc_server.translation.programs import ProgramError, run

PROGRAM: Final = "espeak-ng"
MAX_SPEECH_S: Final = 120.0
"""What is longer is cut off: two thousand characters read aloud are less, two thousand digits are more."""
_PREFERRED: Final = {"en": "en-us", "fr": "fr-fr", "pt": "pt-br", "es": "es", "vi": "vi", "fa": "fa"}
"""Of several voices of one language; else the first that it lists."""
_VARIANTS: Final = (("m3", 50), ("f2", 52), ("m1", 38), ("f4", 62), ("m7", 46), ("f3", 40), ("m2", 64), ("f5", 50))
"""How speakers differ: a variant of the voice, and its pitch (0 to 99)."""
_WORDS_PER_MINUTE: Final = 165
_HEADER_BYTES: Final = 44
_RATE_HZ: Final = 22_050
_AUDIBLE: Final = 0.01
_PEAK: Final = 0.5


def voices() -> dict[str, str]:
    """What it calls its voice of each language; empty without it."""
    if shutil.which(PROGRAM) is None:
        return {}
    try:
        lines = run([PROGRAM, "--voices"]).decode("utf-8", "replace").splitlines()[1:]
    except ProgramError:
        return {}
    found: dict[str, str] = {}
    for name in (line.split()[1] for line in lines if len(line.split()) > 1):
        tag = tag_of(name)
        if tag and (tag not in found or name == _PREFERRED.get(tag)):
            found[tag] = name
    return found


def speak(text: str, voice: str, speaker: int = 0) -> FloatArray | None:
    """``text`` as mono float32 at 24 kHz, peak at half scale, without the silence before it; None if nothing in it can
    be said. ``speaker``: the same number sounds the same. Raises ProgramError."""
    variant, pitch = _VARIANTS[speaker % len(_VARIANTS)]
    # "[[...]]" is for phonemes there.
    options = ["-b", "1", "-v", f"{voice}+{variant}", "-p", str(pitch), "-s", str(_WORDS_PER_MINUTE), "-z"]
    most_bytes = _HEADER_BYTES + 2 * round(MAX_SPEECH_S * _RATE_HZ)
    return _sound(run([PROGRAM, "--stdin", "--stdout", *options], text.replace("[[", "[ ["), most_bytes))


def _sound(wav: bytes) -> FloatArray | None:
    if len(wav) <= _HEADER_BYTES:
        return None
    try:
        with wave.open(io.BytesIO(wav[:_HEADER_BYTES])) as header:
            rate_hz = header.getframerate()
    except (wave.Error, EOFError) as error:
        raise ProgramError(f"{PROGRAM} wrote something else than sound") from error
    samples = np.frombuffer(wav[_HEADER_BYTES : len(wav) - len(wav) % 2], dtype="<i2")
    spoken = audio.from_int16(samples)
    pcm = np.asarray(soxr.resample(spoken, rate_hz, MODEL_RATE_HZ), dtype=np.float32)
    loudest = float(np.abs(pcm).max(initial=0.0))
    heard = np.flatnonzero(np.abs(pcm) > _AUDIBLE * loudest)
    if heard.size == 0:
        return None
    cut: FloatArray = (pcm[heard[0] : heard[-1] + 1] * (_PEAK / loudest)).astype(np.float32)
    return cut
