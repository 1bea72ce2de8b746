"""Sound is kept: every sample through framing, pitch and count through resampling, nothing harmful through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rtc_server import audio
from rtc_server.audio import FRAME_SAMPLES, MODEL_RATE_HZ, SILENCE_DBFS, FrameAssembler, Resampler
from tests.support.signals import FloatArray, largest_step, pitch_hz, sine, sine_step

RATES_HZ = [8_000, 16_000, 24_000, 44_100, 48_000]
MOST_DELAY_S = 0.03
"""What a resampler may keep back."""


def in_blocks(pcm: FloatArray, sizes: list[int]) -> list[FloatArray]:
    """``pcm`` cut into blocks of these sizes, round and round."""
    blocks, at, turn = [], 0, 0
    while at < pcm.size:
        size = sizes[turn % len(sizes)]
        blocks.append(pcm[at : at + size])
        at, turn = at + size, turn + 1
    return blocks


def resample(pcm: FloatArray, sizes: list[int], from_hz: int, to_hz: int) -> FloatArray:
    resampler = Resampler(from_hz, to_hz)
    return np.concatenate([resampler.process(block) for block in in_blocks(pcm, sizes)])


def test_the_sizes_of_the_project_belong_together() -> None:
    """A frame is a whole number of packets, and both are whole numbers of samples."""
    assert (audio.FRAME_SAMPLES, audio.PACKET_SAMPLES) == (1920, 480)
    assert FRAME_SAMPLES % audio.PACKET_SAMPLES == 0


@pytest.mark.parametrize(("ms", "rate_hz", "samples"), [(80, 24_000, 1920), (20, 48_000, 960), (0, 8_000, 0)])
def test_milliseconds_and_samples_convert_both_ways(ms: float, rate_hz: int, samples: int) -> None:
    assert audio.ms_to_samples(ms, rate_hz) == samples
    assert audio.samples_to_ms(samples, rate_hz) == ms


@settings(deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=30), st.integers(1, 2000))
def test_framing_keeps_every_sample_in_order(sizes: list[int], frame_samples: int) -> None:
    """Whatever the blocks: frames of the exact size, and together with the rest they are what was pushed."""
    assembler = FrameAssembler(frame_samples)
    total = sum(sizes)
    numbers = np.arange(total, dtype=np.float32)
    frames: list[FloatArray] = []
    at = 0
    for size in sizes:
        frames += assembler.push(numbers[at : at + size])
        at += size
        assert assembler.buffered_samples == at - len(frames) * frame_samples < frame_samples
    assert all(frame.shape == (frame_samples,) for frame in frames)
    missing = -total % frame_samples
    frames += assembler.push(audio.silence(missing)) if missing else []
    whole = np.concatenate(frames) if frames else audio.silence(0)
    np.testing.assert_array_equal(whole[:total], numbers)


def test_a_cleared_assembler_has_forgotten_what_was_buffered() -> None:
    assembler = FrameAssembler()
    assembler.push(np.ones(FRAME_SAMPLES - 1, np.float32))
    assembler.clear()
    assert assembler.buffered_samples == 0
    (frame,) = assembler.push(audio.silence(FRAME_SAMPLES))
    assert not frame.any()


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("to_model", [True, False], ids=["to 24 kHz", "from 24 kHz"])
def test_resampling_keeps_count_and_pitch(rate_hz: int, to_model: bool) -> None:
    """Ten seconds come out as ten seconds, but for the delay of the filter, at the same pitch and level."""
    from_hz, to_hz = (rate_hz, MODEL_RATE_HZ) if to_model else (MODEL_RATE_HZ, rate_hz)
    out = resample(sine(10 * from_hz, 1000.0, from_hz), [from_hz // 50], from_hz, to_hz)
    assert 0 <= 10 * to_hz - out.size <= MOST_DELAY_S * to_hz
    assert out.dtype == np.float32
    middle = out[to_hz : 9 * to_hz]
    assert pitch_hz(middle, to_hz) == pytest.approx(1000.0, abs=0.2)
    assert audio.level_dbfs(middle) == pytest.approx(audio.level_dbfs(sine(48_000, 1000.0, 48_000)), abs=0.2)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("sizes", [[160], [1], [7, 960, 1, 333], [5000]], ids=str)
def test_resampling_has_no_steps_at_block_borders(rate_hz: int, sizes: list[int]) -> None:
    """In blocks of any size, the samples are those of the whole resampled in one go."""
    pcm = sine(rate_hz // 2, 700.0, rate_hz)
    whole = resample(pcm, [pcm.size], rate_hz, MODEL_RATE_HZ)
    blockwise = resample(pcm, sizes, rate_hz, MODEL_RATE_HZ)
    common = min(whole.size, blockwise.size)
    assert common > pcm.size * MODEL_RATE_HZ / rate_hz - MOST_DELAY_S * MODEL_RATE_HZ
    np.testing.assert_allclose(blockwise[:common], whole[:common], atol=1e-5)
    settled = blockwise[1000:common]
    assert largest_step(settled) <= 1.02 * sine_step(700.0)


def test_the_same_rate_needs_no_resampling() -> None:
    pcm = sine(960)
    np.testing.assert_array_equal(Resampler(MODEL_RATE_HZ, MODEL_RATE_HZ).process(pcm), pcm)


@settings(deadline=None)
@given(npst.arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32)))
def test_what_is_sanitised_is_finite_and_within_full_scale(pcm: FloatArray) -> None:
    """NaN becomes silence, the rest is clipped, what was right stays as it was, and the original is not touched."""
    before = pcm.copy()
    clean = audio.sanitise(pcm)
    assert clean.dtype == np.float32
    assert clean.shape == pcm.shape
    assert np.isfinite(clean).all()
    assert (np.abs(clean) <= 1.0).all()
    right = np.abs(pcm) <= 1.0
    np.testing.assert_array_equal(clean[right], pcm[right])
    assert not clean[np.isnan(pcm)].any()
    np.testing.assert_array_equal(np.sign(clean[np.abs(pcm) > 1.0]), np.sign(pcm[np.abs(pcm) > 1.0]))
    np.testing.assert_array_equal(pcm, before)


def test_sanitising_narrows_wider_floats() -> None:
    """A model that computes in float64 gets no float64 past the border."""
    clean = audio.sanitise(np.array([1e300, 0.5]))  # type: ignore[arg-type]
    assert clean.dtype == np.float32
    assert clean.tolist() == [1.0, 0.5]


def test_what_is_sanitised_may_stay_where_it_is() -> None:
    pcm = np.array([np.nan, np.inf, -np.inf, 3.0, 0.5], dtype=np.float32)
    assert audio.sanitise(pcm, out=pcm) is pcm
    assert pcm.tolist() == [0.0, 1.0, -1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("pcm", "dbfs"),
    [
        (np.ones(100, np.float32), 0.0),
        (np.full(100, -0.1, np.float32), -20.0),
        (sine(24_000, 1000.0, amplitude=1.0), -3.01),
        (np.zeros(100, np.float32), SILENCE_DBFS),
        (np.full(100, 1e-9, np.float32), SILENCE_DBFS),
        (np.zeros(0, np.float32), SILENCE_DBFS),
        (np.full(4, np.nan, np.float32), SILENCE_DBFS),
    ],
    ids=["full scale", "a tenth", "sine", "silence", "nearly silence", "nothing", "nan"],
)
def test_levels(pcm: FloatArray, dbfs: float) -> None:
    """Root mean square against full scale, with a floor for what has no logarithm."""
    assert audio.level_dbfs(pcm) == pytest.approx(dbfs, abs=0.01)


def test_every_16_bit_sample_survives_the_round_trip() -> None:
    """To float and back moves no sample by more than two steps of 65,536, and keeps zero and order."""
    samples = np.arange(-32768, 32768).astype(np.int16)
    back = audio.to_int16(audio.from_int16(samples)).astype(int)
    assert np.abs(back - samples).max() <= 2
    assert back[32768] == 0
    assert (np.diff(back) >= 0).all()


def test_what_is_over_full_scale_is_clipped_and_does_not_wrap() -> None:
    loud = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 1e30], np.float32)
    assert audio.to_int16(loud).tolist() == [-32767, -32767, 0, 32767, 32767, 32767]


def test_16_bit_samples_become_floats_within_one() -> None:
    floats = audio.from_int16(np.array([-32768, 0, 16384, 32767], np.int16))
    assert floats.dtype == np.float32
    assert floats.tolist() == pytest.approx([-1.0, 0.0, 0.5, 1.0], abs=1e-4)
