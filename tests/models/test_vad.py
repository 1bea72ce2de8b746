"""Silero's detector behind the engine's contract: speech is heard, and nothing else is; rows are their own."""

from __future__ import annotations

import numpy as np
import pytest

from lab.speech.clips import SPEECH_HZ, speak
from rtc_server import audio
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray, Resampler
from rtc_server.models.silero import VoiceActivityModel
from rtc_server.transcription.turns import SpeechKind, VoiceTracker
from tests.conftest import need_commands


def frames(pcm: FloatArray) -> FloatArray:
    whole = pcm.size - pcm.size % FRAME_SAMPLES
    return pcm[:whole].reshape(-1, FRAME_SAMPLES)


def spoken(text: str = "Hello there, how are you today?") -> FloatArray:
    need_commands("espeak-ng")
    pcm = Resampler(SPEECH_HZ, MODEL_RATE_HZ).process(speak(text))
    return np.concatenate((audio.silence(MODEL_RATE_HZ), pcm, audio.silence(MODEL_RATE_HZ)))


def probabilities(model: VoiceActivityModel, pcm: FloatArray, row: int = 0) -> list[float]:
    active = np.arange(model.info.slots) == row
    made = []
    for frame in frames(pcm):
        output = model.step(np.broadcast_to(frame, (model.info.slots, FRAME_SAMPLES)), active)[row]
        assert output is not None
        made.append(1.0 - output.pauses[0])
    return made


def test_speech_is_heard_and_silence_is_not() -> None:
    heard = probabilities(VoiceActivityModel(1), spoken())
    assert max(heard[:11]) < 0.1
    assert np.mean(np.array(heard[13:-14]) > 0.5) > 0.7
    assert max(heard[-8:]) < 0.1


def test_speech_makes_one_turn() -> None:
    tracker = VoiceTracker(0.5, 400, 700)
    made = [
        (event.kind, event.at_ms)
        for n, probability in enumerate(probabilities(VoiceActivityModel(1), spoken()), 1)
        for event in tracker.push(n * audio.FRAME_MS, probability)
    ]
    assert [kind for kind, _ in made] == [SpeechKind.STARTED, SpeechKind.ENDED, SpeechKind.TURN_ENDED]
    assert made[0][1] == pytest.approx(1000, abs=250)


@pytest.mark.parametrize("level", [0.0, 0.0005, 0.05])
def test_noise_is_no_speech(level: float) -> None:
    noise = (np.random.default_rng(1).standard_normal(10 * MODEL_RATE_HZ) * level).astype(np.float32)
    assert np.mean(np.array(probabilities(VoiceActivityModel(1), noise)) > 0.5) < 0.02


def test_rows_know_nothing_of_each_other() -> None:
    """Interleaved with another's speech, a row says what it says alone; and after a wipe what it said at first."""
    pcm = spoken()
    alone = probabilities(VoiceActivityModel(2), pcm)
    model = VoiceActivityModel(2)
    other = frames(spoken("Something else altogether was said here, and at greater length."))
    both = []
    for n, frame in enumerate(frames(pcm)):
        rows = np.stack((frame, other[n % len(other)]))
        output = model.step(rows, np.array([True, n % 3 != 0]))[0]
        assert output is not None
        both.append(1.0 - output.pauses[0])
    assert both == alone
    model.reset(np.array([True, False]))
    assert probabilities(model, pcm) == alone


def test_rows_that_are_not_active_make_nothing() -> None:
    model = VoiceActivityModel(3)
    model.warm_up()
    made = model.step(np.zeros((3, FRAME_SAMPLES), np.float32), np.array([False, True, False]))
    assert [output is None for output in made] == [True, False, True]
    model.close()
