"""A tape of questions for the bundled model, and how soon each was answered."""

from __future__ import annotations

from typing import Final

import numpy as np
import soxr

from bench.analysis import Heard, Said, block_levels
from bench.tape import ANALYSIS_HZ, OPUS_HZ, Tape, record
from lab.speech import espeak
from lab.speech.spoken import Voice

_QUESTION: Final = "what is three plus four"
_VOICE: Final = Voice("en-us+m7", 160)
"""No model was trained with it."""
_LEVEL: Final = 0.7
_LEAD_S: Final = 1.5
_PERIOD_S: Final = 5.0
_SHIFT_S: Final = 0.02
"""From one question to the next, over and above the period: they end at every place in a frame of 80 ms."""
_AUDIBLE_DBFS: Final = -40.0
_PATIENCE_S: Final = 3.0
_BLOCK: Final = ANALYSIS_HZ // 100


def questions_tape(count: int) -> Tape:
    """``count`` questions, with silence before each for the answer to the one before it. The tape's marks are where
    they end. Raises EspeakError where espeak-ng is missing."""
    speech = espeak.speak(_QUESTION, _VOICE)
    pcm = np.asarray(soxr.resample(speech.pcm * np.float32(_LEVEL), 24_000, OPUS_HZ), dtype=np.float32)
    audible_s = (np.flatnonzero(np.abs(pcm) > 10 ** (_AUDIBLE_DBFS / 20))[-1] + 1) / OPUS_HZ
    starts = [_LEAD_S + number * (_PERIOD_S + _SHIFT_S) for number in range(count)]
    tape = np.zeros(round((starts[-1] + _PERIOD_S) * OPUS_HZ), dtype=np.float32)
    for start in starts:
        first = round(start * OPUS_HZ)
        tape[first : first + pcm.size] = pcm
    return record("questions", tape, tuple(round((start + audible_s) * ANALYSIS_HZ) for start in starts))


def answer_times(said: Said, heard: Heard, marks: tuple[int, ...]) -> list[float | None]:
    """Of each question that was said whole: seconds from its last sample's leaving the client to the arrival of the
    first 10 ms of sound after it. None: nothing came in time, or the model spoke already."""
    loud = block_levels(heard.pcm) > _AUDIBLE_DBFS
    arrived = heard.time_of(np.arange(loud.size) * _BLOCK) if loud.size else np.zeros(0)
    times: list[float | None] = []
    for mark in marks:
        if mark >= said.pcm.size:
            break
        ended = float(said.time_of(mark))
        sound = arrived[loud]
        after = sound[sound > ended]
        spoke = bool(np.any((sound > ended - 0.2) & (sound <= ended)))
        in_time = after.size > 0 and after[0] - ended < _PATIENCE_S and not spoke
        times.append(float(after[0] - ended) if in_time else None)
    return times
