"""What a program gives a client as its microphone: a function that is asked for samples at the pace of real time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rtc_server import audio
from rtc_server.audio import FloatArray

MICROPHONE_HZ: Final = 48_000

Microphone = Callable[[int], FloatArray]
"""Called with a number of samples; returns that many, mono float32 at 48 kHz."""


def silent_microphone(samples: int) -> FloatArray:
    return audio.silence(samples)
