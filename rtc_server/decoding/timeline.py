"""Turns the frames of one track into mono at 24 kHz, and fills the gaps between their timestamps with silence."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import av
import av.error
import numpy as np
import soxr

from rtc_server import audio
from rtc_server.audio import MODEL_RATE_HZ, FloatArray
from rtc_server.media.downmix import Downmix

_MAX_CHANNELS: Final = 64
_RATES_HZ: Final = range(1_000, 3_000_000)
_GAP_S: Final = 0.1
"""Silence that was not recorded (a muted microphone, audio that starts after the video) shows as a hole in the
timestamps. From this length on it is put back, or every later word would have the wrong time."""
_BREAK_S: Final = 600.0
"""A hole of more than this is none: the clock of the file has jumped."""

_FRONT: Final = math.sqrt(0.5)
_WEIGHTS: Final = {"FC": 1.0, "FL": _FRONT, "FR": _FRONT, "FLC": _FRONT, "FRC": _FRONT}
_OTHER_WEIGHT: Final = 0.5
"""ITU-R BS.775, folded once more: who speaks in a film is in the centre. The subwoofer's channel is kept, for in the
recording of a meeting it is the fourth microphone."""


class Timeline:
    """One track. By soxr: one library for all rates of this project, at its high quality here, for no listener waits
    for the delay of its filters; it compensates that delay, so that word times are those of the file."""

    def __init__(self, start_s: float) -> None:
        self._origin_s = start_s
        self._position = Fraction(0)
        self._rate_hz = 0
        self._resampler: soxr.ResampleStream | None = None
        self._mixer = _Mixer()

    def push(self, frame: av.AudioFrame) -> Iterator[FloatArray]:
        channels = frame.layout.nb_channels
        if frame.sample_rate not in _RATES_HZ or not 0 < channels <= _MAX_CHANNELS or not frame.samples:
            return
        time_s = frame.time
        try:
            mono = self._mixer.mono(frame)
        except (av.error.FFmpegError, ValueError):  # a layout or a format that cannot be converted
            return
        if frame.sample_rate != self._rate_hz:  # it may change where recordings were joined
            if self._resampler is not None:
                yield self._resample(audio.silence(0), last=True)
            self._rate_hz = frame.sample_rate
            self._resampler = soxr.ResampleStream(self._rate_hz, MODEL_RATE_HZ, 1, dtype="float32", quality="HQ")
        for block_samples in self._missing(time_s):
            yield self._resample(audio.silence(block_samples))
        self._position += Fraction(mono.size, self._rate_hz)
        yield self._resample(mono)

    def flush(self) -> FloatArray:
        """The rest; nothing can be pushed afterwards."""
        return audio.silence(0) if self._resampler is None else self._resample(audio.silence(0), last=True)

    def _resample(self, mono: FloatArray, last: bool = False) -> FloatArray:
        assert self._resampler is not None
        resampled: FloatArray = self._resampler.resample_chunk(mono, last=last)
        return np.clip(resampled, -1.0, 1.0)  # filters ring

    def _missing(self, time_s: float | None) -> Iterator[int]:
        """Samples of silence before a frame of this time, in pieces of a second."""
        if time_s is None or not math.isfinite(time_s):
            return
        gap_s = time_s - self._origin_s - float(self._position)
        if not -_GAP_S < gap_s < _BREAK_S:
            self._origin_s += gap_s
            return
        if gap_s < _GAP_S:
            return
        samples = round(gap_s * self._rate_hz)
        self._position += Fraction(samples, self._rate_hz)
        while samples > 0:
            yield min(samples, self._rate_hz)
            samples -= self._rate_hz


class _Mixer:
    """Mixes frames down to one channel.

    By way of interleaved samples: PyAV 18 counts a planar frame's channels by looking for a null pointer behind them,
    and from eight on there is none: reading such a frame's planes ends the process.
    """

    def __init__(self) -> None:
        self._of: tuple[object, ...] | None = None
        self._interleave: av.AudioResampler
        self._downmix: Downmix

    def mono(self, frame: av.AudioFrame) -> FloatArray:
        """Float32, finite, within ±1."""
        of = (frame.format.name, frame.layout.name, frame.sample_rate, frame.time_base)
        if of != self._of:
            self._interleave = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
            self._downmix = Downmix(_weights(tuple(each.name for each in frame.layout.channels)), frame.sample_rate)
            self._of = of
        channels = frame.layout.nb_channels
        frame.pts = None  # one frame in is one frame out: nothing depends on times
        made = [packed.to_ndarray().reshape(-1, channels) for packed in self._interleave.resample(frame)]
        return self._downmix.push(audio.sanitise(np.concatenate(made)))


@functools.lru_cache(maxsize=64)
def _weights(names: tuple[str, ...]) -> FloatArray:
    """One for each channel, together 1, so that nothing clips. Channels that have no name are all alike."""
    weights = np.array([_WEIGHTS.get(name, _OTHER_WEIGHT) for name in names])
    shares: FloatArray = (weights / weights.sum()).astype(np.float32)
    return shares
