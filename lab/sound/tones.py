"""Tones: a microphone that hears one, an ear for the server's voice, and what is measured on what it heard.

Waits for conditions, never for a time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final, Self

import numpy as np

from lab.waiting import until
from rtc_server.audio import MODEL_RATE_HZ, FloatArray, level_dbfs
from rtc_server.client import MICROPHONE_HZ, Microphone

TONE_LEVEL: Final = 0.25
TONE_DBFS: Final = 20 * np.log10(TONE_LEVEL / np.sqrt(2))
VOICED_DBFS: Final = TONE_DBFS - 20
"""A block of a tone that is quieter than this has a hole in it."""
_PITCH_HZ: Final = 3.0
"""Within which a tone is of a pitch, after codecs and resamplers."""
_POLL_S: Final = 0.01
_BLOCK_MS: Final = 5
_HOLDUP_MS: Final = 25
"""A hold-up that an echo must survive without a gap: less than the playout's reserve of 40 ms."""
_UNDISTURBED_WITHIN_S: Final = 50.0


def tone(hz: float, amplitude: float = TONE_LEVEL) -> Microphone:
    """A microphone that hears a sine, without a break from block to block."""
    sent = 0

    def microphone(samples: int) -> FloatArray:
        nonlocal sent
        phase = 2 * np.pi * hz * (np.arange(samples) + sent) / MICROPHONE_HZ
        sent += samples
        return (amplitude * np.sin(phase)).astype(np.float32)

    return microphone


class _Holdups:
    """Watches for how long the event loop, and any other thread, had to wait for its turn."""

    def __init__(self) -> None:
        self.longest_ms = 0
        self._done = threading.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch_loop(), name="holdups")
        self._thread = threading.Thread(target=self._watch_threads, name="holdups")
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._done.set()
        await self._task
        await asyncio.to_thread(self._thread.join)

    async def _watch_loop(self) -> None:
        while not self._done.is_set():
            start = time.monotonic()
            await asyncio.sleep(_POLL_S)
            self._note(start)

    def _watch_threads(self) -> None:
        while not self._done.is_set():
            start = time.monotonic()
            time.sleep(_POLL_S)
            self._note(start)

    def _note(self, start: float) -> None:
        late_s = time.monotonic() - start - _POLL_S
        self.longest_ms = max(self.longest_ms, round(late_s * 1000))


class Ear:
    """Hears the server's voice: all of it, at 24 kHz. Give it to a client as ``on_voice``."""

    def __init__(self) -> None:
        self._blocks: list[FloatArray] = []
        self.samples = 0

    def __call__(self, pcm: FloatArray) -> None:
        self._blocks.append(pcm)
        self.samples += pcm.size

    def since(self, sample: int) -> FloatArray:
        return np.concatenate([np.zeros(0, np.float32), *self._blocks])[sample:]

    def last(self, seconds: float) -> FloatArray:
        return self.since(max(0, self.samples - round(seconds * MODEL_RATE_HZ)))

    async def hear_undisturbed(self, seconds: float, before_s: float = 0.5) -> FloatArray:
        """The next ``seconds`` of the voice in which, and ``before_s`` before which, this machine has held up neither
        end of the call.

        Client and server share this process, and this machine may have other things to do: audio that a machine
        has no time for has gaps that say nothing of the server. An attempt ends with the first hold-up. A server that
        holds up its own event loop does so in each of them, and fails.
        """
        lead, wanted = (round(each * MODEL_RATE_HZ) for each in (before_s, seconds))
        deadline = time.monotonic() + _UNDISTURBED_WITHIN_S
        while time.monotonic() < deadline:
            begins = self.samples + lead
            async with _Holdups() as holdups:
                await self._until_heard(begins + wanted, holdups)
            if holdups.longest_ms < _HOLDUP_MS:
                return self.since(begins)[:wanted]
        raise AssertionError(f"this process was held up again and again, the last time for {holdups.longest_ms} ms")

    async def _until_heard(self, samples: int, holdups: _Holdups) -> None:
        """Until so many were heard in all, or this machine was held up."""
        done = lambda: holdups.longest_ms >= _HOLDUP_MS or self.samples >= samples  # noqa: E731
        await until(done, f"{samples} samples of the server's track")

    async def hear(self, seconds: float, timeout_s: float = 20.0) -> FloatArray:
        """The next ``seconds`` of the voice, silence included."""
        start, wanted = self.samples, round(seconds * MODEL_RATE_HZ)
        await until(lambda: self.samples - start >= wanted, f"{seconds} s of the server's track", timeout_s)
        return self.since(start)[:wanted]

    async def until_level(self, above: float = -100.0, below: float = 100.0, window_s: float = 0.2) -> None:
        """Until the last moments are this loud."""

        def fits() -> bool:
            enough = self.samples >= window_s * MODEL_RATE_HZ
            return enough and above <= level_dbfs(self.last(window_s)) <= below

        await until(fits, f"a voice of {above} to {below} dBFS")

    async def until_voice(self) -> None:
        await self.until_level(above=VOICED_DBFS)


def pitch_hz(pcm: FloatArray) -> float:
    """The loudest frequency, between the bins of the spectrum."""
    spectrum = np.log(np.abs(np.fft.rfft(pcm * np.hanning(pcm.size))) + 1e-12)
    peak = int(np.argmax(spectrum[1:-1])) + 1
    left, middle, right = spectrum[peak - 1 : peak + 2]
    shift = 0.5 * (left - right) / (left - 2 * middle + right)
    return float((peak + shift) * MODEL_RATE_HZ / pcm.size)


def ends_in_tone(pcm: FloatArray, hz: float) -> bool:
    """Whether the last second of ``pcm`` is a tone of this pitch. Wait for it: where a busy machine has cut holes into
    it, the next second may have none."""
    last = pcm[-MODEL_RATE_HZ:]
    return last.size == MODEL_RATE_HZ and level_dbfs(last) > VOICED_DBFS and abs(pitch_hz(last) - hz) <= _PITCH_HZ


def tone_dbfs(pcm: FloatArray, hz: float) -> float:
    """The level of one frequency in ``pcm``, as that of a sine."""
    window = np.blackman(pcm.size)
    turn = np.exp(-2j * np.pi * hz * np.arange(pcm.size) / MODEL_RATE_HZ)
    amplitude = 2 * abs(np.dot(pcm * window, turn)) / window.sum()
    return float(20 * np.log10(amplitude / np.sqrt(2) + 1e-12))


def _loud_blocks(pcm: FloatArray) -> list[bool]:
    size = MODEL_RATE_HZ * _BLOCK_MS // 1000
    blocks = pcm[: pcm.size // size * size].reshape(-1, size)
    return [level_dbfs(block) > VOICED_DBFS for block in blocks]


def longest_gap_ms(pcm: FloatArray) -> int:
    """The longest stretch in which a tone cannot be heard."""
    longest = run = 0
    for loud in _loud_blocks(pcm):
        run = 0 if loud else run + 1
        longest = max(longest, run)
    return longest * _BLOCK_MS


def voiced_ms(pcm: FloatArray) -> int:
    """For how long a tone can be heard, gaps left out."""
    return sum(_loud_blocks(pcm)) * _BLOCK_MS
