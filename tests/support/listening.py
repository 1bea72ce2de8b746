"""Listening to aiortc's own tracks, for clients that are not lean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from rtc_server import audio
from rtc_server.audio import FloatArray, Resampler


def mono_24k(frame: av.AudioFrame, resampler: Resampler | None) -> tuple[FloatArray, Resampler]:
    """``frame`` (any rate, any number of channels) as mono float32 at 24 kHz, and the resampler to pass in
    with the next frame: a new one when the rate has changed."""
    decoded: npt.NDArray[Any] = frame.to_ndarray()
    samples = audio.from_int16(decoded) if decoded.dtype == np.int16 else decoded
    channels = frame.layout.nb_channels
    if channels > 1:  # planar: [channels, n]; packed: [1, n * channels]
        by_channel = samples if frame.format.is_planar else samples.reshape(-1, channels).T
        samples = by_channel.mean(axis=0, dtype=np.float32)
    if resampler is None or resampler.from_hz != frame.sample_rate:
        resampler = Resampler(frame.sample_rate, audio.MODEL_RATE_HZ)
    return resampler.process(np.ascontiguousarray(samples.reshape(-1), dtype=np.float32)), resampler


async def pump(track: MediaStreamTrack, sink: Callable[[FloatArray], None]) -> None:
    """Read ``track`` until it ends, giving ``sink`` mono float32 at 24 kHz as it comes.

    Must run for as long as the track lives: aiortc queues without a bound what is not read. Safe to cancel.
    """
    resampler: Resampler | None = None
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        if isinstance(frame, av.AudioFrame) and frame.samples:
            pcm, resampler = mono_24k(frame, resampler)
            sink(pcm)
