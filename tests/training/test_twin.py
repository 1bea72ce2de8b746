"""A twin says the same words as the person, at the same times, in espeak-ng's voice."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest

from lab.speech import espeak
from lab.speech.spoken import SpeechError, Spoken, Voice
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from tests.conftest import need_commands
from training.alignment import aligned
from training.twin import stretched, twin

TEXT = "please what is the opposite of small"


def beeps(at_s: list[float], duration_s: float, hz: float) -> FloatArray:
    """100 ms each."""
    time = np.arange(round(duration_s * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    sounds = sum(((time >= at) & (time < at + 0.1)).astype(float) for at in at_s)
    return np.asarray(sounds * np.sin(2 * np.pi * hz * time), dtype=np.float32)


def test_what_is_stretched_comes_when_it_should_at_its_pitch() -> None:
    pcm = beeps([0.2, 0.6], 1.0, hz=440.0)
    made = stretched(pcm, np.array([0.0, 0.2, 0.6, 1.0]), np.array([0.0, 0.4, 0.7, 1.5]), round(1.5 * MODEL_RATE_HZ))
    assert len(made) == round(1.5 * MODEL_RATE_HZ)
    loud = np.abs(made[: len(made) // 240 * 240]).reshape(-1, 240).max(axis=1) > 0.3
    begins = np.flatnonzero(loud[1:] & ~loud[:-1]) / 100 + 0.01
    assert begins == pytest.approx([0.4, 0.7], abs=0.03)
    tone = made[round(0.42 * MODEL_RATE_HZ) : round(0.47 * MODEL_RATE_HZ)]
    spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), MODEL_RATE_HZ))
    assert np.argmax(spectrum) == pytest.approx(440, abs=15)


@pytest.mark.parametrize("words_per_minute", [115, 165, 230])
def test_a_twin_is_in_step_with_the_person(words_per_minute: int) -> None:
    need_commands("espeak-ng")
    spoken = espeak.speak(TEXT, Voice("en-us+f4", words_per_minute, pitch=70))
    made = twin(spoken, TEXT)
    assert len(made) == len(spoken.pcm)
    found = aligned(made, TEXT)
    assert [word for _, word in found.words] == TEXT.split()
    apart = [abs(ours - theirs) for (ours, _), (theirs, _) in zip(found.words, spoken.words, strict=True)]
    assert median(apart) < 0.05
    assert max(apart) < 0.15


def test_there_is_no_twin_of_other_words() -> None:
    need_commands("espeak-ng")
    spoken = espeak.speak(TEXT, Voice("en-us+f4"))
    with pytest.raises(SpeechError, match="other words"):
        twin(Spoken(spoken.pcm, spoken.words[1:], spoken.phonemes), TEXT)
