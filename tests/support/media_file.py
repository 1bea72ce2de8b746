"""Files of audio, decoded as an upload is."""

from __future__ import annotations

import io

import numpy as np

from rtc_server.audio import FloatArray
from rtc_server.decoding.media_file import MediaFile
from tests.support.signals import sine

SECONDS = 1.5


def decoded(data: bytes) -> FloatArray:
    return np.concatenate(list(MediaFile(io.BytesIO(data)).blocks()))


def tone(rate_hz: int, seconds: float = SECONDS) -> FloatArray:
    return sine(round(seconds * rate_hz), 440.0, rate_hz, amplitude=0.25)
