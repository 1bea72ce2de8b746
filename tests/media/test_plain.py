"""Audio without packets: each format sounds as it came, in whatever pieces, and silence stays digital silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.sound.tones import pitch_hz
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, FloatArray
from rtc_server.media.plain import PlainReader, PlainWriter
from rtc_server.protocols.openai.formats import AudioFormat

EVERY = list(AudioFormat)


def tone(seconds: float, hz: float = 440.0) -> FloatArray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(MODEL_RATE_HZ * seconds)) / MODEL_RATE_HZ)).astype(np.float32)


def written(pcm: FloatArray, audio_format: AudioFormat) -> bytes:
    writer = PlainWriter(audio_format)
    return b"".join(writer.write(pcm[at : at + FRAME_SAMPLES]) for at in range(0, pcm.size, FRAME_SAMPLES))


@pytest.mark.parametrize("audio_format", EVERY)
def test_a_tone_goes_out_and_comes_back(audio_format: AudioFormat) -> None:
    raw = written(tone(2.0), audio_format)
    heard = PlainReader(audio_format).read(raw)
    assert len(raw) / audio_format.sample_bytes / audio_format.rate_hz == pytest.approx(2.0, abs=0.05)
    assert heard.size / MODEL_RATE_HZ == pytest.approx(2.0, abs=0.1)
    assert pitch_hz(heard[-MODEL_RATE_HZ:]) == pytest.approx(440, abs=3)
    assert float(np.sqrt(np.mean(np.square(heard[MODEL_RATE_HZ:])))) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("audio_format", EVERY)
@settings(max_examples=20)
@given(pieces=st.lists(st.integers(1, 700), min_size=1, max_size=12))
def test_how_it_is_cut_makes_no_difference(audio_format: AudioFormat, pieces: list[int]) -> None:
    raw = written(tone(0.5), audio_format)
    whole, cut = PlainReader(audio_format), PlainReader(audio_format)
    parts, at = [], 0
    for piece in pieces:
        parts.append(cut.read(raw[at : at + piece * audio_format.sample_bytes]))
        at += piece * audio_format.sample_bytes
    parts.append(cut.read(raw[at:]))
    assert np.allclose(np.concatenate(parts), whole.read(raw), atol=1e-6)


@given(st.binary(max_size=400).map(lambda raw: raw[: len(raw) // 2 * 2]))
def test_whatever_comes_is_finite_and_within_full_scale(raw: bytes) -> None:
    for audio_format in EVERY:
        pcm = PlainReader(audio_format).read(raw)
        assert pcm.dtype == np.float32
        assert not pcm.size or float(np.abs(pcm).max()) <= 1.0


@pytest.mark.parametrize("audio_format", [AudioFormat.PCM_24K, AudioFormat.PCM_16K])
def test_silence_after_a_voice_is_digital_silence(audio_format: AudioFormat) -> None:
    """Clients find the ends of utterances by it."""
    quiet = written(np.concatenate((tone(0.5), np.zeros(MODEL_RATE_HZ, np.float32))), audio_format)
    assert not any(quiet[-audio_format.rate_hz :])
