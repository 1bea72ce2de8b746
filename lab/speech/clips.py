"""Speech to feed a microphone with: spoken by espeak-ng, at 48 kHz, as samples and as a file for Chromium."""

from __future__ import annotations

import io
import subprocess
import wave
from pathlib import Path

import numpy as np

from rtc_server import audio
from rtc_server.audio import FloatArray, Resampler

SPEECH_HZ = 48_000


def speak(text: str, voice: str = "en-gb", words_per_minute: int = 150) -> FloatArray:
    """``text`` as mono float32 at 48 kHz, peak at half scale."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "--stdout", text]
    spoken = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(spoken)) as reader:
        rate_hz = reader.getframerate()
        pcm = audio.from_int16(np.frombuffer(reader.readframes(reader.getnframes()), dtype=np.int16))
    resampler = Resampler(rate_hz, SPEECH_HZ)
    pcm = np.concatenate((resampler.process(pcm), resampler.process(audio.silence(rate_hz // 5))))
    levelled: FloatArray = (pcm / np.abs(pcm).max() * 0.5).astype(np.float32)
    return levelled


def write_wav(path: Path, pcm: FloatArray, rate_hz: int = SPEECH_HZ) -> Path:
    """``pcm`` as a 16-bit mono file."""
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(audio.to_int16(pcm).tobytes())
    return path
