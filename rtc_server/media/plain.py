"""Audio without packets, as WebSockets carry it: bytes of a format to samples at 24 kHz, and back.

Pure. What happens to a stream that comes too fast is not decided here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray, Resampler
from rtc_server.media.g711 import ALAW, ULAW
from rtc_server.protocols.openai.formats import AudioFormat

_LAWS: Final = {AudioFormat.PCMU: ULAW, AudioFormat.PCMA: ALAW}


class PlainReader:
    """One stream from a client."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._law = _LAWS.get(audio_format)
        self._resampler = Resampler(audio_format.rate_hz, audio.MODEL_RATE_HZ)

    def read(self, raw: bytes) -> FloatArray:
        """The next samples: mono float32 at 24 kHz, within ±1. ``raw``: whole samples; their number varies."""
        pcm = audio.from_int16(np.frombuffer(raw, dtype="<i2")) if self._law is None else self._law.decode(raw)
        return np.clip(self._resampler.process(pcm), np.float32(-1), np.float32(1))


class PlainWriter:
    """One stream to a client."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._law = _LAWS.get(audio_format)
        self._resampler = Resampler(audio.MODEL_RATE_HZ, audio_format.rate_hz)

    def write(self, pcm: FloatArray) -> bytes:
        """The next samples, mono float32 at 24 kHz, as bytes: of as many samples as there are at the other rate by
        now."""
        resampled = self._resampler.process(pcm)
        if self._law is not None:
            return self._law.encode(resampled)
        return audio.to_int16(resampled).astype("<i2", copy=False).tobytes()
