"""What is in any channel is heard, also where another channel has it turned over; and nothing clicks or wanders."""

from __future__ import annotations

import numpy as np
import pytest

from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.media.downmix import Downmix
from tests.support.signals import sine


def mixed(*channels: FloatArray, weights: FloatArray | None = None, block: int = 480) -> FloatArray:
    rows = np.stack(channels, axis=1).astype(np.float32)
    shares = np.full(len(channels), 1 / len(channels), np.float32) if weights is None else weights
    mix = Downmix(shares, MODEL_RATE_HZ)
    return np.concatenate([mix.push(rows[start : start + block]) for start in range(0, len(rows), block)])


def voice(seconds: float = 2.0, hz: float = 440.0) -> FloatArray:
    return sine(round(seconds * MODEL_RATE_HZ), hz, MODEL_RATE_HZ, amplitude=0.25)


def noise(seed: int, samples: int, level: float) -> FloatArray:
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def rms(pcm: FloatArray) -> float:
    return float(np.sqrt(np.mean(pcm**2)))


def test_a_channel_turned_over_is_left_out_from_the_first_sample() -> None:
    np.testing.assert_allclose(mixed(voice(), -voice()), voice(), atol=1e-6)


@pytest.mark.parametrize("gain", [-0.3, -0.7, -1.5])
def test_so_it_is_at_other_levels(gain: float) -> None:
    louder = max(1.0, abs(gain))
    assert rms(mixed(voice(), gain * voice())) == pytest.approx(louder * rms(voice()), rel=0.05)


def test_so_it_is_in_noise_as_loud_as_the_voice() -> None:
    """Of a plain sum nothing but the noise would be left."""
    said = voice(4.0)
    level = rms(said)
    heard = mixed(said + noise(1, said.size, level), -said + noise(2, said.size, level))
    share = abs(np.dot(heard, said)) / np.dot(said, said)
    assert share > 0.8


def test_among_more_channels_only_the_one_that_opposes_is_left_out() -> None:
    rows = [voice(), -voice(), voice(hz=1000.0)]
    heard = mixed(*rows)
    np.testing.assert_allclose(heard, (rows[0] + rows[2]) / 2, atol=1e-6)


def test_channels_that_do_not_oppose_are_the_weighted_sum() -> None:
    """Stereo as it is recorded, channels that are independent, and one microphone alone: nothing is changed."""
    weights = np.array([0.7, 0.3], np.float32)
    independent = noise(1, 48_000, 0.1), noise(2, 48_000, 0.1)
    for rows in ((voice(), 0.5 * voice()), (voice(), np.zeros_like(voice())), independent):
        expected = np.stack(rows, axis=1) @ weights
        np.testing.assert_allclose(mixed(*rows, weights=weights), expected, atol=1e-6)


def test_no_click_where_a_channel_begins_to_oppose() -> None:
    one = voice(2.0)
    other = np.concatenate((one[: one.size // 2], -one[one.size // 2 :]))
    heard = mixed(one, other)
    assert np.abs(np.diff(heard)).max() < 0.06  # a sample of the tone is at most 0.03 from the next
    assert rms(heard[-MODEL_RATE_HZ // 2 :]) == pytest.approx(rms(one), rel=0.01)


def test_it_does_not_waver_between_two_that_are_alike() -> None:
    """Each change would turn the sound over."""
    said = voice(4.0)
    heard = mixed(said + noise(1, said.size, 0.01), -said + noise(2, said.size, 0.01))
    np.testing.assert_allclose(heard, said, atol=0.06)


def test_the_size_of_blocks_changes_nothing_of_note() -> None:
    one, other = voice(), -voice()
    np.testing.assert_allclose(mixed(one, other, block=4800), mixed(one, other, block=480), atol=1e-6)
    assert mixed(one, other, block=7).size == one.size
