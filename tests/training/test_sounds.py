"""What training makes of a voice before the model hears it: another throat, a gain control as browsers have it."""

from __future__ import annotations

import numpy as np
import pytest

from rtc_server.audio import MODEL_RATE_HZ, FloatArray, level_dbfs
from tests.support.signals import sine
from training.sounds import controlled, shaped, tones

AMPLITUDE = 0.1
SILENT_S = 0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_gain_control_begins_too_loud_and_limited_and_comes_down(seed: int) -> None:
    """Not at the beginning of the recording but at that of the voice: the first word is what is misheard."""
    voice = sine(4 * MODEL_RATE_HZ, 440.0, MODEL_RATE_HZ, amplitude=AMPLITUDE)
    made = controlled(np.concatenate([np.zeros(round(SILENT_S * MODEL_RATE_HZ)), voice]), np.random.default_rng(seed))
    assert np.abs(made).max() <= 1.3 * AMPLITUDE
    first = made[round(SILENT_S * MODEL_RATE_HZ) :][: MODEL_RATE_HZ // 20]
    last = made[-MODEL_RATE_HZ:]
    assert level_dbfs(first) > level_dbfs(last) + 1
    assert _crest_db(first) < _crest_db(last) - 0.5, "it is limited: its peaks are cut"
    assert _crest_db(last) == pytest.approx(_crest_db(voice), abs=1)


def _voice(pitch_hz: float, formant_hz: float) -> FloatArray:
    """A vowel of one formant: a second of harmonics, the louder the nearer to it."""
    at = np.arange(MODEL_RATE_HZ) / MODEL_RATE_HZ
    harmonics = np.arange(pitch_hz, 5000, pitch_hz)
    levels = 1 / (1 + ((harmonics - formant_hz) / 300) ** 2)
    pcm = sum(level * np.sin(2 * np.pi * hz * at) for hz, level in zip(harmonics, levels, strict=True))
    return np.asarray(pcm, dtype=np.float32) * np.float32(AMPLITUDE)


def _harmonics(pcm: FloatArray, pitch_hz: float) -> tuple[float, float]:
    """Where its energy lies in the middle, in Hz, and the share of it that multiples of ``pitch_hz`` have."""
    energy = np.abs(np.fft.rfft(pcm)) ** 2
    hz = np.arange(len(energy))
    near = np.abs(hz - pitch_hz * np.round(hz / pitch_hz)) <= 3
    return float((energy * hz).sum() / energy.sum()), float(energy[near].sum() / energy.sum())


@pytest.mark.parametrize("pitch_hz", [100.0, 220.0])
@pytest.mark.parametrize("shape", [0.87, 1.15])
def test_another_throat_moves_the_formant_and_keeps_the_pitch(pitch_hz: float, shape: float) -> None:
    voice = _voice(pitch_hz, 1400.0)
    made = shaped(voice, shape)
    assert len(made) == len(voice)
    before_hz, _ = _harmonics(voice, pitch_hz)
    after_hz, share = _harmonics(made, pitch_hz)
    moved = (after_hz - before_hz) / (before_hz * (shape - 1))
    assert 0.4 < moved < 1.8, "to the nearest harmonics"
    assert share > 0.9
    assert level_dbfs(made) == pytest.approx(level_dbfs(voice), abs=3)


def test_the_same_throat_changes_nothing() -> None:
    voice = _voice(120.0, 1400.0)
    assert shaped(voice, 1.0) is voice
    np.testing.assert_allclose(shaped(voice, 1.0 + 1e-9), voice, atol=2e-3)


@pytest.mark.parametrize("samples", [1, 255, 1023, 5000])
def test_what_is_short_or_silent_stays_as_long(samples: int) -> None:
    assert shaped(np.zeros(samples, dtype=np.float32), 1.1).tolist() == [0.0] * samples


@pytest.mark.parametrize("seed", range(3))
def test_tones_are_a_few_frequencies_at_a_time(seed: int) -> None:
    made = tones(10 * MODEL_RATE_HZ, np.random.default_rng(seed))
    assert np.sqrt(np.mean(made**2)) == pytest.approx(1.0, abs=0.01)
    pieces = np.abs(np.fft.rfft(made.reshape(-1, MODEL_RATE_HZ // 10) * np.hanning(MODEL_RATE_HZ // 10))) ** 2
    loud = pieces[pieces.sum(1) > 0.1 * pieces.sum(1).max()]
    most = np.sort(loud, axis=1)[:, -48:].sum(1) / loud.sum(1)
    assert np.median(most) > 0.95, "of 1,200 bands of 10 Hz"


def _crest_db(pcm: FloatArray) -> float:
    """Of a sine, 3 dB; of what is limited, less."""
    return float(20 * np.log10(np.abs(pcm).max())) - level_dbfs(pcm)
