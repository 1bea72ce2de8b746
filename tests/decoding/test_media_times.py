"""A media file is heard at its times, however long it is."""

from __future__ import annotations

import io
import tracemalloc

import av
import numpy as np
import pytest

from lab.inputs.files import encode
from rtc_server.audio import MODEL_RATE_HZ
from rtc_server.decoding import media_file
from rtc_server.decoding.findings import Refused
from rtc_server.decoding.media_file import MediaFile
from tests.support.media_file import SECONDS, decoded, tone


def test_silence_that_was_not_recorded_is_put_back() -> None:
    """A recorder that writes nothing while the microphone is muted; times go on."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for number, first in enumerate((0, 3 * 48_000)):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 48_000), 3000 * (number + 1), np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 48_000, first
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    pcm = decoded(target.getvalue())
    assert pcm.size / MODEL_RATE_HZ == pytest.approx(4.0, abs=0.01)
    levels = [abs(pcm[round(at * MODEL_RATE_HZ)]) for at in (0.5, 1.5, 2.5, 3.5)]
    assert levels == pytest.approx([3000 / 32768, 0, 0, 6000 / 32768], abs=1e-3)


def test_audio_that_starts_after_the_picture_keeps_its_time() -> None:
    data = encode(tone(48_000), "mp4", "aac", 48_000, first_pts=48_000, picture=True)
    pcm = decoded(data)
    assert pcm.size / MODEL_RATE_HZ == pytest.approx(1 + SECONDS, abs=0.06)
    assert np.abs(pcm[: round(0.9 * MODEL_RATE_HZ)]).max() < 1e-3
    assert np.abs(pcm[round(1.1 * MODEL_RATE_HZ) :]).max() > 0.2


def test_a_jump_of_the_clock_is_not_silence() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        for first in (0, 8000 * 7200):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, first
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert decoded(target.getvalue()).size / MODEL_RATE_HZ == pytest.approx(2.0, abs=0.01)


def silent_hours(hours: float) -> bytes:
    """FLAC packs silence to next to nothing: a few hundred kilobytes for hours."""
    return encode(np.broadcast_to(np.float32(0), (round(hours * 3600 * 2000),)), "flac", "flac", 2000)


def test_a_long_file_is_never_in_memory() -> None:
    data = silent_hours(0.4)
    assert len(data) < 1_000_000
    file = MediaFile(io.BytesIO(data))
    assert file.duration_s == pytest.approx(1440)
    samples = longest = peak = 0
    tracemalloc.start()
    for block in file.blocks():
        samples += block.size
        longest = max(longest, block.size)
        if not peak and samples > 90 * MODEL_RATE_HZ:  # watched memory is slow, and the rest is like this
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert samples == 1440 * MODEL_RATE_HZ
    assert longest < 5 * MODEL_RATE_HZ
    assert 0 < peak < 5_000_000


def test_more_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_file, "MAX_DURATION_S", 60)
    with pytest.raises(Refused):
        decoded(silent_hours(0.05))
    assert decoded(silent_hours(0.01)).size == 36 * MODEL_RATE_HZ
