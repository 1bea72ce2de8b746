"""The ears of clients that are not lean: any frame of aiortc's becomes 24 kHz mono."""

from __future__ import annotations

import asyncio

import av
import numpy as np
import numpy.typing as npt
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, PACKET_SAMPLES, Resampler
from tests.support.listening import mono_24k, pump
from tests.support.signals import FloatArray, pitch_hz, sine


def remote_frame(left: FloatArray, right: FloatArray | None, format_name: str, rate_hz: int) -> av.AudioFrame:
    """A decoder's frame: ``s16`` or ``flt``, with ``p`` at the end planar; mono without ``right``."""
    channels = np.stack([left] if right is None else [left, right])
    values: npt.NDArray[np.generic] = audio.to_int16(channels) if format_name.startswith("s16") else channels
    planar = format_name.endswith("p")
    data = values if planar else values.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(data), format=format_name, layout="mono" if right is None else "stereo"
    )
    frame.sample_rate = rate_hz
    return frame


def whole(frames: list[av.AudioFrame]) -> FloatArray:
    resampler: Resampler | None = None
    blocks = []
    for frame in frames:
        pcm, resampler = mono_24k(frame, resampler)
        assert pcm.dtype == np.float32
        assert pcm.ndim == 1
        blocks.append(pcm)
    return np.concatenate(blocks)


def in_packets(pcm: FloatArray, rate_hz: int) -> list[FloatArray]:
    return list(pcm.reshape(-1, rate_hz // 50))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("format_name", ["s16", "s16p", "flt", "fltp"])
@pytest.mark.parametrize("stereo", [False, True], ids=["mono", "stereo"])
def test_any_frame_becomes_24_khz_mono(rate_hz: int, format_name: str, stereo: bool) -> None:
    """A second of a tone stays a second of that tone, at its level."""
    tone = in_packets(sine(rate_hz, 500.0, rate_hz), rate_hz)
    pcm = whole([remote_frame(block, block if stereo else None, format_name, rate_hz) for block in tone])
    assert 0 <= MODEL_RATE_HZ - pcm.size <= 0.03 * MODEL_RATE_HZ
    middle = pcm[2400:21600]
    assert pitch_hz(middle) == pytest.approx(500.0, abs=2)
    assert audio.level_dbfs(middle) == pytest.approx(audio.level_dbfs(sine(24_000, 500.0)), abs=0.2)


@pytest.mark.parametrize("format_name", ["s16", "s16p", "flt", "fltp"])
def test_stereo_is_the_mean_of_its_channels(format_name: str) -> None:
    """Left alone is half as loud; left against right is silence; the channels are not mixed up in time."""
    left = sine(PACKET_SAMPLES)
    pcm, _ = mono_24k(remote_frame(left, audio.silence(PACKET_SAMPLES), format_name, MODEL_RATE_HZ), None)
    np.testing.assert_allclose(pcm, left / 2, atol=1e-4)
    pcm, _ = mono_24k(remote_frame(left, -left, format_name, MODEL_RATE_HZ), None)
    np.testing.assert_allclose(pcm, 0, atol=1e-4)


def test_mono_at_24_khz_stays_as_it_is() -> None:
    tone = sine(PACKET_SAMPLES)
    pcm, _ = mono_24k(remote_frame(tone, None, "flt", MODEL_RATE_HZ), None)
    np.testing.assert_array_equal(pcm, tone)


def test_a_resampler_goes_on_until_the_rate_changes() -> None:
    """A peer may change its codec in the middle of a call."""
    _, first = mono_24k(remote_frame(sine(960), None, "s16", 48_000), None)
    _, same = mono_24k(remote_frame(sine(960), sine(960), "s16", 48_000), first)
    _, other = mono_24k(remote_frame(sine(160), None, "s16", 8_000), same)
    assert same is first
    assert other is not first
    assert (other.from_hz, other.to_hz) == (8_000, 24_000)


class RemoteTrack(MediaStreamTrack):
    """Gives what it has, then ends as aiortc's tracks do, or stays silent for ever."""

    kind = "audio"

    def __init__(self, frames: list[object], ends: bool = True) -> None:
        super().__init__()
        self._frames = iter(frames)
        self._ends = ends

    async def recv(self) -> object:  # type: ignore[override]
        for frame in self._frames:
            return frame
        if self._ends:
            raise MediaStreamError
        await asyncio.Event().wait()
        raise AssertionError


async def test_the_pump_gives_everything_until_the_track_ends() -> None:
    tone = sine(48_000, 500.0, 48_000)
    frames: list[object] = [remote_frame(block, block, "s16", 48_000) for block in in_packets(tone, 48_000)]
    heard: list[FloatArray] = []
    await asyncio.wait_for(pump(RemoteTrack(frames), heard.append), 5)
    assert len(heard) == 50
    pcm = np.concatenate(heard)
    assert pitch_hz(pcm[2400:21600]) == pytest.approx(500.0, abs=2)


async def test_the_pump_passes_over_what_is_not_audio() -> None:
    frames: list[object] = [av.VideoFrame(16, 16, "rgb24"), av.AudioFrame("s16", "mono", 0), object()]
    frames.append(remote_frame(sine(PACKET_SAMPLES), None, "s16", MODEL_RATE_HZ))
    heard: list[FloatArray] = []
    await asyncio.wait_for(pump(RemoteTrack(frames), heard.append), 5)
    assert [pcm.size for pcm in heard] == [PACKET_SAMPLES]


async def test_the_pump_can_be_cancelled() -> None:
    task = asyncio.create_task(pump(RemoteTrack([], ends=False), lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
