"""The bench's parts that need no judges: what is lost, when it arrives, and how what is heard is lined up."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality import RECEIVERS, align, arrival_times, encode, receive
from lab.network.link import Link, LinkSettings
from rtc_server import audio
from rtc_server.audio import FloatArray


@pytest.fixture(scope="module")
def said() -> FloatArray:
    """Two seconds of noise below 3 kHz, in bursts: it has one place only where it fits."""
    chance = np.random.default_rng(1)
    noise = np.convolve(chance.standard_normal(2 * audio.MODEL_RATE_HZ), np.hanning(8) / 4, "same")
    loudness = np.repeat(chance.uniform(0, 0.2, 20), noise.size // 20)
    return (noise * loudness).astype(np.float32)


def test_the_same_seed_loses_the_same_packets() -> None:
    packets = [b"x"] * 2000
    arrivals = arrival_times(Link(LinkSettings(loss=0.1), seed=3), packets)
    assert arrivals == arrival_times(Link(LinkSettings(loss=0.1), seed=3), packets)
    assert arrivals != arrival_times(Link(LinkSettings(loss=0.1), seed=4), packets)
    assert len(arrivals) == pytest.approx(1800, abs=40)


@pytest.mark.parametrize("shift", [-4321, 0, 1, 4321])
def test_what_is_heard_early_or_late_is_moved_back(said: FloatArray, shift: int) -> None:
    heard = np.concatenate((audio.silence(shift), said)) if shift >= 0 else said[-shift:]
    aligned = align(said, heard)
    kept = slice(max(0, -shift), None)
    assert aligned.size == said.size
    assert np.array_equal(aligned[kept], said[kept])


@pytest.mark.parametrize("name", RECEIVERS)
def test_every_receiver_hears_a_clean_stream_whole_and_a_lossy_one_in_time(said: FloatArray, name: str) -> None:
    """Losses leave holes, not shorter speech: the end is where it was."""
    packets = encode(said, expected_percent=10)
    for loss in (0.0, 0.1):
        arrivals = arrival_times(Link(LinkSettings(loss=loss), seed=1), packets)
        heard = align(said, receive(RECEIVERS[name](), packets, arrivals))
        parts = [slice(start, start + 8000) for start in range(0, said.size, 8000)]
        fit = [float(np.corrcoef(said[part], heard[part])[0, 1]) for part in parts]
        assert min(fit) > (0.75 if loss == 0 else 0.4)
