"""What training puts between a person and the model: a gain control as browsers have it."""

from __future__ import annotations

import numpy as np
import pytest

from rtc_server.audio import MODEL_RATE_HZ, FloatArray, level_dbfs
from tests.support.signals import sine
from training.sounds import controlled

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


def _crest_db(pcm: FloatArray) -> float:
    """Of a sine, 3 dB; of what is limited, less."""
    return float(20 * np.log10(np.abs(pcm).max())) - level_dbfs(pcm)
